"""Windows: open files cannot be renamed, folders cannot be flushed, and there are few signals."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import queue as queues
import stat
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from .base import System

_Result = TypeVar("_Result")
_LOCKED_BYTE = 1 << 30  # a lock keeps others from reading what it covers, so it covers what nobody reads
_RENAME_PATIENCE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # seconds between tries: scanners open files that are new
_LONGEST_WAIT = 0.1  # seconds that Ctrl-C waits for, as a wait for a lock cannot be interrupted
_FORBIDDEN = frozenset('<>:"|?*') | {chr(code) for code in range(32)}
_RESERVED = frozenset(
    ("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", *(f"{port}{n}" for port in ("COM", "LPT") for n in "123456789"))
)
_PRIVILEGE_NOT_HELD = 1314


class Windows(System):
    """Windows 10 and newer."""

    device_folders = ("\\\\.\\",)
    library_names = ("corepress.dll",)

    def sync(self, path: Path) -> None:
        """See `System.sync`; folders need no flush, and cannot be opened."""
        if path.is_dir():
            return
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & stat.S_IWRITE:
            path.chmod(mode | stat.S_IWRITE)
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))  # only what may be written is flushed
            try:
                self.flush(descriptor)
            finally:
                os.close(descriptor)
        finally:
            if not mode & stat.S_IWRITE:
                path.chmod(mode)

    def lock(self, descriptor: int) -> bool | None:
        """See `System.lock`."""
        msvcrt = import_module("msvcrt")
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return False if error.errno in (0, errno.EACCES, errno.EDEADLK) else None  # Wine gives no reason
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    def rename(self, source: Path, target: Path) -> None:
        """See `System.rename`."""
        _patiently(os.rename, source, target)

    def replace(self, source: Path, target: Path) -> None:
        """See `System.replace`; a read-only target is replaced as on other systems."""
        if target.exists():
            self.make_removable([str(target)])
        _patiently(os.replace, source, target)

    def make_removable(self, paths: Iterable[str]) -> None:
        """See `System.make_removable`: read-only files cannot be removed."""
        for path in paths:
            if not os.path.islink(path):
                os.chmod(path, stat.S_IWRITE | stat.S_IREAD)

    def link_like(self, source: Path, target: Path) -> None:
        """See `System.link_like`; links need a privilege or Windows' developer mode."""
        try:
            super().link_like(source, target)
        except OSError as error:
            if getattr(error, "winerror", None) != _PRIVILEGE_NOT_HELD or source.is_dir():
                raise
            self.copy_file(source, target)

    def is_name(self, name: str) -> bool:
        """See `System.is_name`: names of devices, drives and streams are not."""
        stem = name.partition(".")[0].rstrip(" ").upper()
        return not (_FORBIDDEN & set(name) or name.endswith((".", " ")) or stem in _RESERVED)

    def take(self, queue: SimpleQueue[_Result]) -> _Result:
        """See `System.take`."""
        while True:
            with contextlib.suppress(queues.Empty):
                return queue.get(timeout=_LONGEST_WAIT)

    def peak_memory(self) -> int | None:
        """See `System.peak_memory`."""

        class Counters(ctypes.Structure):
            _fields_ = (
                ("size", ctypes.c_uint32),
                ("page_faults", ctypes.c_uint32),
                ("peak_working_set", ctypes.c_size_t),
                ("others", ctypes.c_size_t * 7),
            )

        counters = Counters(size=ctypes.sizeof(Counters))
        kernel = _kernel()
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        found = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), counters.size)
        return int(counters.peak_working_set) if found else None

    def cpu_name(self) -> str:
        """See `System.cpu_name`."""
        with contextlib.suppress(ImportError, OSError):
            registry = import_module("winreg")
            key = registry.OpenKey(registry.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0")
            with key:
                return str(registry.QueryValueEx(key, "ProcessorNameString")[0]).strip()
        return super().cpu_name()

    def memory_bytes(self) -> int | None:
        """See `System.memory_bytes`."""

        class Status(ctypes.Structure):
            _fields_ = (
                ("size", ctypes.c_uint32),
                ("load", ctypes.c_uint32),
                ("total", ctypes.c_uint64),
                ("others", ctypes.c_uint64 * 6),
            )

        status = Status(size=ctypes.sizeof(Status))
        return int(status.total) if _kernel().GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _kernel() -> Any:
    return getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009 (other systems have none)


def _patiently(rename: Callable[[Path, Path], None], source: Path, target: Path) -> None:
    for seconds in _RENAME_PATIENCE:
        with contextlib.suppress(PermissionError):
            return rename(source, target)
        time.sleep(seconds)
    return rename(source, target)
