"""How far apart the values of two models are, added up value by value."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression.metrics import snr_db


class Distance:
    """How far apart two values are, over all samples.

    Infinite values and NaN are left out where both values have the same, and are infinitely far apart otherwise.

    Attributes
    ----------
    samples : int
        Number of pairs.
    max_abs : float
        Largest difference.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.max_abs = 0.0
        self._signal = self._other = self._noise = self._product = self._peak = 0.0
        self._count = 0
        self._is_lost = False

    def add(self, expected: NDArray[Any], actual: NDArray[Any]) -> None:
        """Add a pair of arrays of the same size."""
        self.samples += 1
        ours, theirs = (each.reshape(-1).astype(np.float64) for each in (expected, actual))
        if ours.size != theirs.size:
            self._is_lost = True
            return
        finite = np.isfinite(ours) & np.isfinite(theirs)
        if not finite.all():
            rest, others = ours[~finite], theirs[~finite]
            self._is_lost |= not np.array_equal(rest, others, equal_nan=True)
            ours, theirs = ours[finite], theirs[finite]
        difference = ours - theirs
        self._signal += float(ours @ ours)
        self._other += float(theirs @ theirs)
        self._product += float(ours @ theirs)
        self._noise += float(difference @ difference)
        self._count += ours.size
        self._peak = max(self._peak, float(np.abs(ours).max(initial=0.0)))
        self.max_abs = max(self.max_abs, float(np.abs(difference).max(initial=0.0)))
        if self._is_lost:
            self.max_abs = math.inf

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio of the second relative to the first; infinite if they are equal."""
        return -math.inf if self._is_lost else snr_db(self._signal, self._noise)

    @property
    def psnr_db(self) -> float:
        """The square of the largest magnitude over the mean of squared differences, in dB."""
        return -math.inf if self._is_lost else snr_db(self._peak * self._peak * self._count, self._noise)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between them as vectors."""
        norms = math.sqrt(self._signal) * math.sqrt(self._other)
        return self._product / norms if norms else float(self._signal == self._other)


def pairs_of(
    expected: Mapping[str, Any], actual: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[NDArray[Any], NDArray[Any]]]]:
    """The outputs of two models as arrays: those that both have and that are numbers, images or probabilities."""
    for name, ours in expected.items():
        if name not in actual:
            continue
        theirs = actual[name]
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            labels = list(ours)
            yield (
                name,
                (np.array([ours[each] for each in labels]), np.array([theirs.get(each, 0.0) for each in labels])),
            )
            continue
        if isinstance(ours, str | int | np.integer):
            continue
        arrays = pixels_of(ours), pixels_of(theirs)
        if all(each.dtype.kind in "fiub" for each in arrays):
            yield name, arrays


def pixels_of(value: Any) -> NDArray[Any]:
    """An output as an array; images without their opacity."""
    if getattr(value, "mode", None) == "RGBA":
        value = value.convert("RGB")
    return np.asarray(value)
