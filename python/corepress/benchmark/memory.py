"""Peak memory of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .. import system

Result = TypeVar("Result")


def tells_peaks() -> bool:
    """Whether this system reports the peak of a single call; Linux does."""
    return system.current.measures_peaks


class PeakMeter:
    """Measures calls, and remembers the largest memory of the process since it was made.

    Attributes
    ----------
    largest : int
        Bytes, as of the last call.
    """

    def __init__(self) -> None:
        system.current.forget_peak()
        self.largest = system.current.peak_memory() or 0

    def call(self, function: Callable[[], Result]) -> tuple[Result, int]:
        """Call a function.

        Returns
        -------
        tuple
            What it returns, and the memory in bytes that it added at its peak, its result included.
        """
        self._look()
        system.current.forget_peak()
        before = system.current.resident_memory()
        result = function()
        return result, max(self._look() - before, 0)

    def _look(self) -> int:
        peak = system.current.peak_memory() or 0
        self.largest = max(self.largest, peak)
        return peak
