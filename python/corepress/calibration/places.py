"""Which of many vectors are taken, and where the windows of a convolution are in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0.6180339887498949


def spread(count: int, most: int) -> NDArray[np.int64] | None:
    """Which of `count` vectors are taken if there may be `most`: one of each of as many parts of the same length.

    Where in its part depends on the part's number by the golden ratio, so that rows of pictures do not meet their
    period. None for all.
    """
    if count <= most:
        return None
    bounds = np.arange(most + 1, dtype=np.int64) * count // most
    lengths = bounds[1:] - bounds[:-1]
    places = (np.arange(most, dtype=np.float64) * _GOLDEN) % 1
    taken: NDArray[np.int64] = bounds[:-1] + (places * lengths).astype(np.int64)
    return taken


@dataclass(frozen=True)
class WindowPlaces:
    """Where the windows of a convolution are among the positions of its input, samples and lengths in C order.

    Attributes
    ----------
    total : int
        Number of windows.
    starts : numpy.ndarray of int64
        The first position of each window that is taken.
    offsets : numpy.ndarray of int64
        How far each position of a window is from its first.
    """

    total: int
    starts: NDArray[np.int64]
    offsets: NDArray[np.int64]

    @classmethod
    def of(
        cls, shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], most: int
    ) -> WindowPlaces:
        """The windows of an input.

        Parameters
        ----------
        shape : sequence of int
            Number of samples, then the lengths, pads included.
        kernel, strides, dilations : sequence of int
            One number for each of the lengths.
        most : int
            Windows that are taken, evenly spread over all.
        """
        sizes = shape[1:]
        counts = [
            max(0, (size - (length - 1) * dilation - 1) // stride + 1)
            for size, length, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True)
        ]
        total = prod((shape[0], *counts))
        chosen = spread(total, most)
        places = np.arange(total, dtype=np.int64) if chosen is None else chosen
        starts = _flat(places, (shape[0], *counts), (prod(sizes), *_steps(sizes, strides)))
        offsets = np.zeros(1, np.int64)
        for length, step in zip(kernel, _steps(sizes, dilations), strict=True):
            offsets = (offsets[:, None] + step * np.arange(length, dtype=np.int64)).reshape(-1)
        return cls(total, starts, offsets)

    @property
    def factor(self) -> float:
        """How often each window that is taken counts."""
        return self.total / max(1, len(self.starts))


def _steps(sizes: Sequence[int], factors: Sequence[int]) -> list[int]:
    """How far apart neighbours along each axis are in memory, times a factor."""
    found, step = [], 1
    for size, factor in zip(reversed(sizes), reversed(factors), strict=True):
        found.append(step * factor)
        step *= size
    return found[::-1]


def _flat(places: NDArray[np.int64], counts: Sequence[int], steps: Sequence[int]) -> NDArray[np.int64]:
    """Where each place of a grid begins in memory."""
    found = np.zeros_like(places)
    if not places.size:
        return found
    for count, step in zip(reversed(counts), reversed(steps), strict=True):
        found += (places % count) * step
        places = places // count
    return found
