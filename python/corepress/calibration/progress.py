"""How far a calibration is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class CalibrationProgress:
    """How far a calibration is.

    Attributes
    ----------
    stage : str
        What is done now, in words.
    done, total : float
        Work done, and all work, in runs of the model; a backward pass counts as two.
    seconds_left : float or None
        Estimate; None at the start.
    """

    stage: str
    done: float
    total: float
    seconds_left: float | None


ProgressCallback = Callable[[CalibrationProgress], None]


class Work:
    """Counts the work that is done and tells a callback."""

    def __init__(self, callback: ProgressCallback | None) -> None:
        self._callback = callback
        self._started = time.perf_counter()
        self._stage = ""
        self.done = self._skipped = self.total = 0.0

    def begin(self, stage: str) -> None:
        """Another stage."""
        self._stage = stage
        self._tell()

    def add(self, amount: float, *, skipped: bool = False) -> None:
        """Work that is done; `skipped` if an earlier run had done it."""
        self.done += amount
        self._skipped += amount if skipped else 0
        if not skipped:
            self._tell()

    def _tell(self) -> None:
        if self._callback is None:
            return
        done, seconds = self.done - self._skipped, time.perf_counter() - self._started
        left = (self.total - self.done) * seconds / done if done > 0 else None
        self._callback(CalibrationProgress(self._stage, self.done, max(self.total, self.done), left))
