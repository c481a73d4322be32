"""What every system can do, with default implementations."""

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
    """An operating system; derived classes specialize it.

    Attributes
    ----------
    device_folders : tuple of str
        Prefixes of absolute paths that denote devices or open files.
    library_names : tuple of str
        Possible names of the shared library with the functions of ``corepress.h``.
    removes_open_files : bool
        Whether an open file, or a folder that contains one, can be removed or renamed.
    """

    device_folders: tuple[str, ...] = ()
    library_names: tuple[str, ...] = ("libcorepress.so",)
    removes_open_files = False

    # --- files and folders ---

    def flush(self, descriptor: int) -> None:
        """Flush what was written to a file to the disk itself."""
        os.fsync(descriptor)

    def begin_flush(self, descriptor: int) -> None:
        """Start writing a file's data to the disk, so that little is left for `flush`."""
        os.fsync(descriptor)

    def sync(self, path: Path) -> None:
        """Flush a file or, where possible, a folder to the disk."""
        raise NotImplementedError

    def lock(self, descriptor: int) -> bool | None:
        """Lock a file until it is closed: whether it could be; None where there are no locks."""
        return None

    def owns(self, found: os.stat_result) -> bool:
        """Whether a file is of the user who runs this process."""
        return True

    def exchange(self, first: Path, second: Path) -> bool:
        """Exchange the names of two files or folders atomically; False if that is not possible."""
        return False

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file or folder to a name that is free."""
        os.rename(source, target)

    def replace(self, source: Path, target: Path) -> None:
        """Rename a file, replacing another if there is one."""
        os.replace(source, target)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder and everything in it, including read-only files."""
        for folder, _, names in os.walk(path):
            os.chmod(folder, stat.S_IRWXU)
            self.make_removable(os.path.join(folder, name) for name in names)
        if path.exists():
            shutil.rmtree(path)

    def make_removable(self, paths: Iterable[str]) -> None:
        """Make files in a writable folder removable."""

    def copy_file(self, source: Path, target: Path) -> None:
        """Copy the content of a file to a free name, sharing its blocks on the disk where possible."""
        shutil.copyfile(source, target)

    def copy_range(
        self, source: int, target: int, start: int, end: int, *, at_once: int, before_each: Callable[[], object]
    ) -> int:
        """Append a part of an open file to another, inside the kernel; return how far it came, which may be `start`."""
        return start

    def link_like(self, source: Path, target: Path) -> None:
        """Create a symbolic link with the same target as another, or a copy of its file if links cannot be created."""
        target.symlink_to(os.readlink(source), target_is_directory=source.is_dir())

    def is_same(self, first: Path, second: Path) -> bool:
        """Whether two names refer to the same existing file or folder."""
        try:
            found, other = os.stat(first), os.stat(second)
        except OSError:
            return False
        if found.st_ino and other.st_ino:
            return os.path.samestat(found, other)
        return os.path.realpath(first) == os.path.realpath(second)  # a file system that does not number its files

    def is_inside(self, path: Path, folder: Path) -> bool:
        """Whether a path, which need not exist, is a folder or inside it, however both are written."""
        resolved = Path(os.path.realpath(path))
        if resolved.is_relative_to(os.path.realpath(folder)):
            return True
        return any(self.is_same(each, folder) for each in (resolved, *resolved.parents))

    def is_name(self, name: str) -> bool:
        """Whether a part of a path can only be the name of a file in its folder."""
        return True

    # --- processes ---

    def take(self, queue: SimpleQueue[_Result]) -> _Result:
        """The next item of a queue; Ctrl-C ends the wait."""
        return queue.get()

    def peak_memory(self) -> int | None:
        """Largest resident memory of this process so far, in bytes; None if the system does not report it."""
        return None

    @property
    def measures_peaks(self) -> bool:
        """Whether `forget_peak` works."""
        return False

    def forget_peak(self) -> None:
        """Reset `peak_memory`, after releasing memory that is held for reuse."""
        raise NotImplementedError

    def resident_memory(self) -> int:
        """Resident memory of this process in bytes; only if `measures_peaks`."""
        raise NotImplementedError

    # --- machines ---

    def cpus(self) -> int:
        """Number of CPUs that this process may use."""
        return os.cpu_count() or 1

    def cpu_name(self) -> str:
        """The name of the processor, or its architecture if it has none."""
        return platform.processor() or platform.machine()

    def memory_bytes(self) -> int | None:
        """Memory of the machine, or None if the system does not report it."""
        return None


def written_text(path: Path) -> str | None:
    """The content of a short system file; None if there is no such file."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return None
