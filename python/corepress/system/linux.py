"""Linux: atomic exchanges, copies inside the kernel, and information from ``/proc``."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from .base import written_text
from .posix import Posix, c_library

_STATUS, _CLEAR, _CPUS = Path("/proc/self/status"), Path("/proc/self/clear_refs"), Path("/proc/cpuinfo")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}  # its number, for C libraries that have no function of this name
_COPIED_AT_ONCE = 1 << 30


class Linux(Posix):
    """Linux, with any C library."""

    def begin_flush(self, descriptor: int) -> None:
        """See `System.begin_flush`."""
        os.fdatasync(descriptor)

    def exchange(self, first: Path, second: Path) -> bool:
        """See `System.exchange`."""
        import ctypes

        library, here = c_library(), ctypes.c_int(_AT_FDCWD)
        arguments = (here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE))
        if hasattr(library, "renameat2"):
            return bool(library.renameat2(*arguments) == 0)
        number = _RENAMEAT2.get(platform.machine())
        return number is not None and bool(library.syscall(ctypes.c_long(number), *arguments) == 0)

    def copy_file(self, source: Path, target: Path) -> None:
        """See `System.copy_file`; the copy shares its blocks with the source on file systems that can."""
        with open(source, "rb") as read, open(target, "xb") as written:
            size = os.fstat(read.fileno()).st_size
            options = {"at_once": _COPIED_AT_ONCE, "before_each": lambda: None}
            whole = self.copy_range(read.fileno(), written.fileno(), 0, size, **options) == size  # type: ignore[arg-type]
        if not whole:
            super().copy_file(source, target)

    def copy_range(
        self, source: int, target: int, start: int, end: int, *, at_once: int, before_each: Callable[[], object]
    ) -> int:
        """See `System.copy_range`."""
        while start < end and hasattr(os, "copy_file_range"):
            before_each()
            try:
                copied = os.copy_file_range(source, target, min(end - start, at_once), start)
            except OSError:  # for example, two file systems
                break
            if not copied:
                break
            start += copied
        return start

    def peak_memory(self) -> int | None:
        """See `System.peak_memory`."""
        try:
            # getrusage counts the memory of the process that started this one, but not this.
            return _status_bytes("VmHWM")
        except (OSError, LookupError):
            return super().peak_memory()

    @property
    def measures_peaks(self) -> bool:
        """See `System.measures_peaks`."""
        return _CLEAR.exists()

    def forget_peak(self) -> None:
        """See `System.forget_peak`."""
        library = c_library()
        if hasattr(library, "malloc_trim"):
            library.malloc_trim(0)
        _CLEAR.write_text("5", encoding="ascii")

    def resident_memory(self) -> int:
        """See `System.resident_memory`."""
        return _status_bytes("VmRSS")

    def cpus(self) -> int:
        """See `System.cpus`."""
        return len(os.sched_getaffinity(0))

    def cpu_name(self) -> str:
        """See `System.cpu_name`."""
        for line in (written_text(_CPUS) or "").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
        return super().cpu_name()


def _status_bytes(key: str) -> int:
    """A quantity of ``/proc/self/status`` in bytes; OSError or LookupError if it is missing."""
    return 1024 * int(_STATUS.read_text(encoding="ascii", errors="replace").split(f"\n{key}:")[1].split()[0])
