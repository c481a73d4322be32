"""Unix: locks that end with a process, signals that interrupt, folders that can be flushed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from .base import System


class Posix(System):
    """Any Unix."""

    device_folders = ("/dev/", "/proc/", "/sys/")
    removes_open_files = True

    def sync(self, path: Path) -> None:
        """See `System.sync`."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            self.flush(descriptor)
        finally:
            os.close(descriptor)

    def lock(self, descriptor: int) -> bool | None:
        """See `System.lock`."""
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def owns(self, found: os.stat_result) -> bool:
        """See `System.owns`."""
        return found.st_uid == os.geteuid()

    def peak_memory(self) -> int | None:
        """See `System.peak_memory`."""
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if sys.platform == "darwin" else peak * 1024)

    def memory_bytes(self) -> int | None:
        """See `System.memory_bytes`."""
        if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= os.sysconf_names.keys():
            return None
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def c_library() -> Any:
    """The functions of the C library, by name; missing ones are an AttributeError."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)
