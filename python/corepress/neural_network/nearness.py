"""Whether codes are the nearest ones to the values that they encode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .._core import count_nonfinite
from ..arrays import contiguous, same_bits
from .modes import require_half
from .weight_params import EncodedWeight, PackedCodes, channel_layout

_PIECE = 1 << 20  # values that are compared at a time
_OF_DOUBLES = 2.0**-20  # of a step: what differences lose, whose values are up to 2**32 steps large
_OF_FLOATS = 2.0**-23
_OF_TABLES = 2.0**-21  # of the largest entry: what the rounding of two entries moves the middle between them
_OF_SUMS = 2.0**-22  # of the largest value of a channel: what decoding loses, in whatever order it rounds
_SMALLEST = 2.0**-149


def misfit(
    weight: NDArray[np.float32],
    codes: NDArray[Any] | PackedCodes,
    encoded: EncodedWeight,
    num_threads: int | None = None,
) -> str | None:
    """The problem of the codes of a weight, or None.

    Parameters
    ----------
    weight : numpy.ndarray of float32
        Finite.
    codes, encoded : numpy.ndarray or PackedCodes, and EncodedWeight
        As `read_codes` gives them. Linear codes must be within half a step, apart from the rounding of scales and
        biases; with a table, no other entry may be nearer, apart from the rounding of entries.
    num_threads : int, optional
        Threads to use.
    """
    if encoded.lut is not None:
        if not np.isfinite(encoded.lut).all():
            return "its table has entries that are NaN or infinite"
        wrong = sum(_far_from_entry(weight.reshape(-1), codes, encoded.lut, num_threads))
        return f"{wrong} of {weight.size} values have a nearer entry in the table" if wrong else None
    scale, bias = encoded.scales, encoded.biases
    if not (np.isfinite(scale).all() and np.isfinite(bias).all()):
        return "it has scales or biases that are NaN or infinite"
    wrong = sum(_far_from_step(weight, codes, encoded, scale, bias))
    return (
        f"{wrong} of {weight.size} values are more than half a step from the values of their codes" if wrong else None
    )


def is_half(weight: NDArray[np.float32], half: NDArray[np.float16], num_threads: int | None = None) -> bool:
    """Whether half precision numbers are the nearest ones to finite values; OutOfRangeError if these are too large."""
    halves = half.reshape(-1)
    begin, same = 0, True
    for piece in _pieces(weight):
        require_half(piece, num_threads)
        nearest = kernels.to_float16(piece, num_threads=num_threads)
        same = same and same_bits(nearest, halves[begin : begin + piece.size])
        begin += piece.size
    return same


def has_nonfinite(weight: NDArray[np.float32], num_threads: int | None = None) -> bool:
    """Whether there are NaN or infinite values."""
    return any(count_nonfinite(piece, num_threads) for piece in _pieces(weight))


def _pieces(weight: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Aligned arrays; data in a file may be unaligned."""
    values = weight.reshape(-1)
    return (contiguous(values[begin : begin + _PIECE]) for begin in range(0, values.size, _PIECE))


def is_restored(weight: NDArray[np.float32], encoded: EncodedWeight, decoded: NDArray[np.float32]) -> bool:
    """Whether values are those that codes encode, apart from rounding if these are products and sums.

    Parameters
    ----------
    weight : numpy.ndarray of float32
        The values.
    encoded, decoded : EncodedWeight and numpy.ndarray of float32
        The codes, and their values.
    """
    if encoded.lut is not None:
        return same_bits(weight, decoded)
    layout = channel_layout(weight.shape, encoded.channel_axis)
    values, others = weight.reshape(layout), decoded.reshape(layout)
    bias = encoded.biases.astype(np.float64)
    for part in range(layout[1]):
        ours, theirs = values[:, part], others[:, part]
        if same_bits(ours, theirs):
            continue
        origin = abs(bias[part if bias.size > 1 else 0])
        apart = abs(ours.astype(np.float64) - theirs).max()
        if not apart <= _OF_SUMS * (abs(theirs).max() + origin):
            return False
    return True


def _far_from_entry(
    values: NDArray[np.float32],
    codes: NDArray[Any] | PackedCodes,
    lut: NDArray[np.float32],
    num_threads: int | None,
) -> Iterator[int]:
    """How many of each piece."""
    entries, ascending = lut.astype(np.float64), np.sort(lut)
    slack = _OF_TABLES * float(abs(entries).max())
    for begin in range(0, values.size, _PIECE):
        piece = values[begin : begin + _PIECE]
        nearest = ascending[kernels.assign(piece, ascending, num_threads=num_threads)].astype(np.float64)
        distance = abs(piece - entries[codes[begin : begin + piece.size]])
        yield int(np.count_nonzero(distance > abs(piece - nearest) + slack))


def _far_from_step(
    weight: NDArray[np.float32],
    codes: NDArray[Any] | PackedCodes,
    encoded: EncodedWeight,
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> Iterator[int]:
    """How many of each piece."""
    layout = channel_layout(weight.shape, encoded.channel_axis if scale.size > 1 else None)
    values = weight.reshape(layout)
    steps, origins = scale.astype(np.float64)[:, None], bias.astype(np.float64)[:, None]
    rounding = (2**encoded.nbits - 1) * _spacing(scale) + _spacing(bias)
    limits = abs(steps) * (0.5 + _OF_DOUBLES) + rounding[:, None] / 2
    outer, channels, run = layout
    rows = max(1, _PIECE // max(1, run))
    for part in range(outer):
        for begin in range(0, channels, rows):
            few = slice(begin, begin + rows)
            for start in range(0, run, _PIECE):
                piece = values[part, few, start : start + _PIECE]
                first = (part * channels + begin) * run + start
                decoded = codes[first : first + piece.size].reshape(piece.shape) * steps[few] + origins[few]
                distance = abs(piece - decoded)
                yield int(np.count_nonzero(distance > limits[few]))


def _spacing(numbers: NDArray[np.float32]) -> NDArray[np.float64]:
    """To the next number, at most."""
    return np.maximum(_OF_FLOATS * abs(numbers.astype(np.float64)), _SMALLEST)
