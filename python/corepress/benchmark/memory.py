"""How much memory a call needs at its peak."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..process_memory import status_bytes

Result = TypeVar("Result")
_CLEAR = Path("/proc/self/clear_refs")


def tells_peaks() -> bool:
    """Whether this system tells the peak of a single call; Linux does."""
    return _CLEAR.exists()


class PeakMeter:
    """Measures calls, and remembers the largest memory of the process since it was made.

    Attributes
    ----------
    largest : int
        Bytes, as of the last call.
    """

    def __init__(self) -> None:
        _give_free_memory_back()
        _CLEAR.write_text("5")  # the peak starts again from here
        self.largest = status_bytes("VmHWM")

    def call(self, function: Callable[[], Result]) -> tuple[Result, int]:
        """Call a function.

        Returns
        -------
        tuple
            What it returns, and the memory in bytes that it added at its peak, its result included.
        """
        self._look()
        _give_free_memory_back()
        _CLEAR.write_text("5")
        before = status_bytes("VmRSS")
        result = function()
        return result, max(self._look() - before, 0)

    def _look(self) -> int:
        peak = status_bytes("VmHWM")
        self.largest = max(self.largest, peak)
        return peak


def _give_free_memory_back() -> None:
    """Memory that the process holds for reuse would not count where a call takes it; glibc can be told to let go."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
