"""What every system can, and how it is done where nothing better is known."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

_Result = TypeVar("_Result")


class System:
    """An operating system; a class derived from it knows one better.

    Attributes
    ----------
    device_folders : tuple of str
        How absolute paths begin that stand for devices or open files.
    library_names : tuple of str
        What the shared library with the functions of ``corepress.h`` may be called.
    removes_open_files : bool
        Whether a file that is open can be removed or renamed, and a folder that holds one.
    """

    device_folders: tuple[str, ...] = ()
    library_names: tuple[str, ...] = ("libcorepress.so",)
    removes_open_files = False

    # --- files and folders ---

    def flush(self, descriptor: int) -> None:
        """Wait until what was written to a file is on the disk itself."""
        os.fsync(descriptor)

    def begin_flush(self, descriptor: int) -> None:
        """Have what was written to a file go to the disk, so that little is left for `flush`."""
        os.fsync(descriptor)

    def sync(self, path: Path) -> None:
        """Wait until a file or, where that can be asked for, a folder is on the disk."""
        raise NotImplementedError

    def lock(self, descriptor: int) -> bool | None:
        """Lock a file until it is closed: whether it could be; None where there are no locks."""
        return None

    def owns(self, found: os.stat_result) -> bool:
        """Whether a file is of the user who runs this process."""
        return True

    def exchange(self, first: Path, second: Path) -> bool:
        """Let two files or folders take each other's names at one instant; False where that cannot be."""
        return False

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder to a name that is free."""
        os.rename(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, in the place of another if there is one."""
        os.replace(source, target)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and all that is in it, what may only be read included."""
        for folder, _, names in os.walk(path):
            os.chmod(folder, stat.S_IRWXU)
            self.make_removable(os.path.join(folder, name) for name in names)
        if path.exists():
            shutil.rmtree(path)

    def make_removable(self, paths: Iterable[str]) -> None:
        """Let files be removed from a folder that may be written to."""

    def copy_file(self, source: Path, target: Path) -> None:
        """Copy the content of a file to a name that is free, without a second copy on the disk where that can be."""
        shutil.copyfile(source, target)

    def copy_range(
        self, source: int, target: int, start: int, end: int, *, at_once: int, before_each: Callable[[], object]
    ) -> int:
        """Append a part of an open file to another, inside the system: up to where it came, which may be `start`."""
        return start

    def link_like(self, source: Path, target: Path) -> None:
        """Make a symbolic link with the text of another, or a copy of its file where links cannot be made."""
        target.symlink_to(os.readlink(source), target_is_directory=source.is_dir())

    def is_same(self, first: Path, second: Path) -> bool:
        """Whether two names are of one file or folder that exists."""
        try:
            found, other = os.stat(first), os.stat(second)
        except OSError:
            return False
        if found.st_ino and other.st_ino:
            return os.path.samestat(found, other)
        return os.path.realpath(first) == os.path.realpath(second)  # a file system that does not number its files

    def is_inside(self, path: Path, folder: Path) -> bool:
        """Whether a path, which need not exist, leads to a folder or into it, however both are written."""
        resolved = Path(os.path.realpath(path))
        if resolved.is_relative_to(os.path.realpath(folder)):
            return True
        return any(self.is_same(each, folder) for each in (resolved, *resolved.parents))

    def is_name(self, name: str) -> bool:
        """Whether a part of a path can be the name of a file in its folder and means nothing else."""
        return True

    # --- processes ---

    def take(self, queue: SimpleQueue[_Result]) -> _Result:
        """The next of a queue, waiting so that Ctrl-C ends it."""
        return queue.get()

    def peak_memory(self) -> int | None:
        """Bytes of the largest resident memory of this process so far; None where the system does not tell."""
        return None

    @property
    def measures_peaks(self) -> bool:
        """Whether `forget_peak` works."""
        return False

    def forget_peak(self) -> None:
        """Have `peak_memory` begin anew, after giving memory back that is held for reuse."""
        raise NotImplementedError

    def resident_memory(self) -> int:
        """Bytes of the resident memory of this process; where `measures_peaks`."""
        raise NotImplementedError

    # --- machines ---

    def cpus(self) -> int:
        """Number of CPUs that this process may use."""
        return os.cpu_count() or 1

    def cpu_name(self) -> str:
        """The processor as it calls itself, or its architecture where it does not."""
        return platform.processor() or platform.machine()

    def memory_bytes(self) -> int | None:
        """Memory of the machine, or None where the system does not tell."""
        return None


def written_text(path: Path) -> str | None:
    """A short text of the system's; None where there is no such file."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None
