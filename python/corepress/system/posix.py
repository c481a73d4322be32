"""Unix: locks that end with a process, signals that interrupt, folders that can be flushed."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from .base import System, TimeIsUp

_Result = TypeVar("_Result")


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

    def within(self, seconds: float, work: Callable[[], _Result]) -> _Result:
        """See `System.within`; of the time of the CPU."""
        # The matching of regular expressions holds Python's lock and looks at nothing but signals, in the main thread.
        if threading.current_thread() is not threading.main_thread():
            return work()

        def stop(number: int, frame: FrameType | None) -> None:
            raise TimeIsUp

        before = signal.signal(signal.SIGVTALRM, stop)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
            try:
                return work()
            finally:
                signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        finally:
            signal.signal(signal.SIGVTALRM, before)

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
