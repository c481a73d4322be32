"""Windows as far as Linux can play it: what it refuses, and what it lacks."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from changing_sources import build

from corepress import system
from corepress.system import windows as windows_module
from corepress.system.windows import Windows

MISSING_IN_OS = ("pread", "copy_file_range", "fdatasync", "sched_getaffinity", "geteuid", "sysconf_names")
PRIVILEGE_NOT_HELD = 1314


def open_files() -> Iterator[str]:
    """The files and folders that this process has open or mapped."""
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/self/fd/{descriptor}")
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        yield line.split(maxsplit=5)[5] if line.count("/") else ""


class PlayedWindows:
    """Refuses what Windows refuses.

    Attributes
    ----------
    refused : list of str
        Names that were to change although they were open, in words.
    real : dict of str to callable
        Linux's own functions of ``os``.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.refused: list[str] = []
        self._folder = str(folder)
        self._inside_rmtree = False
        self.real = {
            name: getattr(os, name) for name in ("open", "fsync", "rename", "replace", "unlink", "rmdir", "symlink")
        }
        self._rmtree = shutil.rmtree
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._renaming(name))
        for name in ("unlink", "remove", "rmdir"):
            monkeypatch.setattr(os, name, self._removing(name))
        monkeypatch.setattr(shutil, "rmtree", self.rmtree)
        monkeypatch.setattr(os, "open", self.open)
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "symlink", self.symlink)
        for name in MISSING_IN_OS:
            monkeypatch.delattr(os, name)
        for name in dir(mmap):
            if name.startswith("MADV_"):
                monkeypatch.delattr(mmap, name)
        monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=self.locking))
        self.kernel = MagicMock()  # whose functions succeed
        self.kernel.GetCurrentProcess.return_value = -1
        monkeypatch.setattr(windows_module, "_kernel", lambda: self.kernel)
        monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
        monkeypatch.setattr(windows_module, "_RENAME_PATIENCE", (0.001,))
        monkeypatch.setattr(system, "current", Windows())

    def require_closed(self, what: str, path: object) -> None:
        """PermissionError if a file is open, or any in a folder."""
        name = os.path.abspath(os.fsdecode(path))  # type: ignore[call-overload]
        if not name.startswith(self._folder):
            return
        for each in open_files():
            if each == name or each.startswith(name + os.sep):
                self.refused.append(f"{what} {name}, while {each} is open")
                raise PermissionError(errno.EACCES, self.refused[-1])

    def _renaming(self, name):
        def renamed(source, target, **options):
            self.require_closed(f"{name} of", source)
            self.require_closed(f"{name} to", target)
            if name == "rename" and os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "Windows renames to names that are free", os.fspath(target))
            if os.path.isfile(target):
                self._require_writable(target)
            self.real[name](source, target, **options)

        return renamed

    def _removing(self, name):
        def removed(path, **options):
            if not self._inside_rmtree:
                self.require_closed(name, path)
                if name != "rmdir":
                    self._require_writable(path)
            self.real["rmdir" if name == "rmdir" else "unlink"](path, **options)

        return removed

    def _require_writable(self, path):
        if os.path.lexists(path) and not os.lstat(path).st_mode & stat.S_IWRITE:
            raise PermissionError(errno.EACCES, "read-only files are neither removed nor replaced", os.fspath(path))

    def rmtree(self, path, *arguments, **options):
        """As `shutil.rmtree`, which on Linux opens the folders."""
        self.require_closed("rmtree", path)
        for folder, _, names in os.walk(path):
            for name in names:
                self._require_writable(os.path.join(folder, name))
        self._inside_rmtree = True
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "open", self.real["open"])
                self._rmtree(path, *arguments, **options)
        finally:
            self._inside_rmtree = False

    def open(self, path, flags, *arguments, **options):
        """As `os.open`; folders cannot be opened."""
        if isinstance(path, str | os.PathLike) and os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Windows opens no folders", os.fspath(path))
        return self.real["open"](path, flags, *arguments, **options)

    def fsync(self, descriptor):
        """As `os.fsync`; a file that was opened for reading cannot be flushed."""
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Windows flushes what may be written")
        self.real["fsync"](descriptor)

    def symlink(self, *arguments, **options):
        """As `os.symlink` without the privilege."""
        error = OSError(errno.EINVAL, "a required privilege is not held by the client")
        error.winerror = PRIVILEGE_NOT_HELD
        raise error

    def locking(self, descriptor, mode, count):
        """As `msvcrt.locking`."""
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "locked") from None


@pytest.fixture
def played_windows(tmp_path, monkeypatch) -> Iterator[PlayedWindows | None]:
    """This process plays Windows below the test's folder; nothing that is open may be renamed or removed."""
    if sys.platform == "win32":  # which needs no player
        yield None
        return
    if sys.platform != "linux":
        pytest.skip("what a process has open is read from /proc")
    played = PlayedWindows(monkeypatch, tmp_path)
    yield played
    assert played.refused == []


@pytest.fixture
def package(tmp_path) -> Path:
    """A package of three linear layers."""
    return build(tmp_path / "source.mlpackage", side=64, layers=3)
