"""Affine quantization of one block, and the search of its scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import error_sums
from .palettes import block_parameters
from .rounding import FORMATS, round_to, step


def choose_scale(low: float, high: float, code_range: tuple[int, int], symmetric: bool, dtype: Any) -> tuple[Any, int]:
    """Return the scale and the zero point for values in [low, high].

    Parameters
    ----------
    low, high : float
        Range of the values.
    code_range : tuple of int
        Smallest and largest code; codes are signed if the smallest is negative.
    symmetric : bool
        Whether the range is made symmetric about zero; otherwise it is widened to include zero.
    dtype : dtype
        Of the weight and the scale.
    """
    lowest, highest = code_range
    zero_point = 0
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
        zero_point = 0 if lowest < 0 else (highest + 1) // 2
    else:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return np.dtype(dtype).type(1), zero_point
    if not symmetric:
        zero_point = round((lowest * high - highest * low) / (high - low))
        zero_point = min(max(zero_point, lowest), highest)
    with np.errstate(over="ignore"):
        span = float(round_to(high - low, dtype))  # as coremltools has it, unless that overflows
    scale = round_to((span if math.isfinite(span) else high - low) / (highest - lowest), dtype)[()]
    scale = max(scale, np.dtype(dtype).type(FORMATS[np.dtype(dtype).name].smallest))
    while not _decodes_finite(scale, lowest - zero_point) or not _decodes_finite(scale, highest - zero_point):
        scale = step(scale, -1)
    return scale, zero_point


def _decodes_finite(scale: Any, code: int) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite((np.float32(code) * np.float32(scale)).astype(scale.dtype)))


def quantize(
    values: NDArray[Any], code_range: tuple[int, int], symmetric: bool, search_scale: bool = False
) -> tuple[NDArray[np.int64], Any, int]:
    """Quantize one block: ``clip(rint(value / scale) + zero_point)``, the quotient in float32, ties to even.

    Of a subnormal scale and the next one above, the one with the smaller squared error is taken.

    Parameters
    ----------
    values : numpy.ndarray of float16 or float32
        Any shape, at least one value.
    code_range : tuple of int
        Smallest and largest code.
    symmetric : bool
        See `choose_scale`.
    search_scale : bool
        See `search_scale`; symmetric codes then have one more value at the end that is left out otherwise.

    Returns
    -------
    codes : numpy.ndarray of int64
        In the shape of `values`.
    scale : numpy.floating
        Of the weight's dtype.
    zero_point : int
    """
    scale, zero_point = choose_scale(float(values.min()), float(values.max()), code_range, symmetric, values.dtype)
    scales = [scale]
    if float(scale) < FORMATS[scale.dtype.name].smallest_normal:
        scales.append(step(scale, 1))
    errors = [_squared_error(values, scale, zero_point, code_range) for scale in scales]
    scale = scales[errors.index(min(errors))]
    if search_scale:
        if symmetric and code_range[0] < 0:
            code_range = code_range[0] - 1, code_range[1]
        elif symmetric:
            code_range = code_range[0], code_range[1] + 1
        scale, zero_point = _search_scale(values, scale, zero_point, code_range, symmetric)
    return _codes(values, scale, zero_point, code_range), scale, zero_point


def _codes(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> NDArray[np.int64]:
    quotients = np.rint(values.astype(np.float32) / np.float32(scale)).astype(np.float64)
    codes: NDArray[np.int64] = np.clip(quotients + zero_point, *code_range).astype(np.int64)
    return codes


def _squared_error(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> float:
    decoded = dequantize(_codes(values, scale, zero_point, code_range), scale, zero_point)
    return error_sums(values, decoded)[0]


def _search_scale(
    values: NDArray[Any], start: Any, start_zero_point: int, code_range: tuple[int, int], symmetric: bool
) -> tuple[Any, int]:
    """Return a scale and a zero point of smaller squared error than the given ones, if they are found.

    The three candidates whose codes explain most of the values' squares are improved.
    """
    best = _Best(values, code_range, start, start_zero_point)
    if best.error == 0:
        return start, start_zero_point
    candidates = scale_candidates(values, start, start_zero_point, code_range, symmetric)
    lowest, highest = code_range
    fits = [
        (_rough_moments(values, candidates[0][0], scale, lowest - zero_point, highest - zero_point), zero_point)
        for scale, zero_point in candidates
    ]
    for _ in range(3):
        explained = [product * product / square if square else 0.0 for (product, square), _ in fits]
        if max(explained, default=0.0) <= 0:
            break
        moments, zero_point = fits[explained.index(max(explained))]
        best.consider_scale_of(moments, zero_point)
        _improve(best, symmetric)
        fits = [fit for fit in fits if fit[0] != moments]
    return best.scale, best.zero_point


def scale_candidates(
    values: NDArray[Any], start: Any, start_zero_point: int, code_range: tuple[int, int], symmetric: bool
) -> list[tuple[Any, int]]:
    """Scales from 40 to 76 sixty-fourths of a given one, each with the zero points that clip about as much at both
    ends."""
    lowest, highest = code_range
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    candidates = []
    for sixty_fourths in (*range(40, 47, 2), *range(47, 74), 76):
        scale = float(start) * sixty_fourths / 64
        zero_points = [start_zero_point]
        if not symmetric:
            middle = round((lowest + highest) / 2 - (low + high) / 2 / scale)
            inside = min(max(middle, lowest), highest)
            zero_points = [inside - 1, inside, inside + 1]
        candidates += [rounded_scale(values.dtype, scale, zero_point, code_range) for zero_point in zero_points]
    return list(filter(None, candidates))


def _improve(best: _Best, symmetric: bool) -> None:
    """The least-squares scale for the codes gives new codes, and neighbouring zero points are tried, until nothing
    improves."""
    for _ in range(6):
        improved = best.consider_scale_of(best.moments(), best.zero_point)
        if not symmetric:
            scale, zero_point = float(best.scale), best.zero_point
            for shift in (-1, 1):
                improved = best.consider(scale, zero_point + shift) or improved
        if not improved:
            break


class _Best:
    """The scale and zero point of the least squared error among those that were considered."""

    def __init__(self, values: NDArray[Any], code_range: tuple[int, int], scale: Any, zero_point: int) -> None:
        self._values, self._code_range = values, code_range
        self.scale, self.zero_point = scale, zero_point
        self.error = _ordered_error(values, scale, zero_point, code_range)

    def consider(self, scale: float, zero_point: int) -> bool:
        """Take these if their error is smaller."""
        candidate = rounded_scale(self._values.dtype, scale, zero_point, self._code_range)
        if candidate is None or candidate == (self.scale, self.zero_point):
            return False
        error = _ordered_error(self._values, *candidate, self._code_range)
        if error >= self.error:
            return False
        self.error, self.scale, self.zero_point = error, *candidate
        return True

    def consider_scale_of(self, moments: tuple[float, float], zero_point: int) -> bool:
        """Take the least-squares scale of some codes if its error is smaller."""
        return moments[0] > 0 and self.consider(moments[0] / moments[1], zero_point)

    def moments(self) -> tuple[float, float]:
        """The moments of the codes."""
        codes = _codes(self._values, self.scale, self.zero_point, self._code_range)
        return moments_of(self._values, codes - self.zero_point)


def rounded_scale(
    dtype: np.dtype[Any], scale: float, zero_point: int, code_range: tuple[int, int]
) -> tuple[Any, int] | None:
    """A scale as it is stored, with its zero point; None if they cannot be used together."""
    lowest, highest = code_range
    with np.errstate(over="ignore"):
        rounded = max(round_to(np.float32(scale), dtype)[()], dtype.type(FORMATS[dtype.name].smallest))
    ends = (lowest - zero_point, highest - zero_point)
    usable = lowest <= zero_point <= highest and all(_decodes_finite(rounded, code) for code in ends)
    return (rounded, zero_point) if usable else None


def in_lanes(numbers: NDArray[np.float64]) -> float:
    """Sum as the kernels do: eight lanes, then the lanes in order."""
    padded = np.append(numbers.reshape(-1), np.zeros(-numbers.size % 8))
    return float(np.add.accumulate(np.add.accumulate(padded.reshape(-1, 8), axis=0)[-1])[-1])


def moments_of(values: NDArray[Any], centred: NDArray[Any]) -> tuple[float, float]:
    exact, codes = values.astype(np.float64), centred.astype(np.float64)
    return in_lanes(exact * codes), in_lanes(codes * codes)


def _rough_moments(
    values: NDArray[Any], first_scale: Any, scale: Any, lowest: int, highest: int
) -> tuple[float, float]:
    """Moments of integers less the zero point, which are between two of them."""
    return rough_moments_by(
        values, first_scale, scale, lambda quotients: np.rint(np.clip(quotients, lowest, highest)).astype(np.float32)
    )


def rough_moments_by(
    values: NDArray[Any],
    first_scale: Any,
    scale: Any,
    rounded: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[float, float]:
    """Moments in single precision, added up 256 values at a time, in units near the first candidate's scale.

    Parameters
    ----------
    values : numpy.ndarray
        What is quantized.
    first_scale, scale : numpy.floating
        The first candidate's scale, and this one's.
    rounded : callable
        The number that the code of each quotient stands for.
    """
    exponent = max(math.frexp(float(first_scale))[1] - 1, -126)
    unit = np.float32(2.0 ** min(max(-exponent, -126), 126))
    exact = values.astype(np.float32).reshape(-1) * unit
    codes = rounded(exact * (np.float32(1) / (np.float32(scale) * unit)))
    product = square = 0.0
    for begin in range(0, exact.size, 256):
        part = slice(begin, begin + 256)
        product += float(np.add.accumulate(exact[part] * codes[part])[-1]) / float(unit)
        square += float(np.add.accumulate(codes[part] * codes[part])[-1])
    return product, square


def _ordered_error(values: NDArray[Any], scale: Any, zero_point: int, code_range: tuple[int, int]) -> float:
    decoded = dequantize(_codes(values, scale, zero_point, code_range), scale, zero_point)
    return in_lanes((values.astype(np.float64) - decoded.astype(np.float64)) ** 2)


def dequantize(codes: NDArray[Any], scale: Any, zero_point: int) -> NDArray[Any]:
    """Return ``(codes - zero_point) * scale``, computed in float32 and rounded once more for a float16 scale."""
    products = (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
    return products.astype(scale.dtype)


def dequantize_blocks(codes: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any] | None) -> NDArray[Any]:
    """Return ``(codes - zero_point) * scale`` with the parameters of each element's block; see `dequantize`."""
    centred = codes.astype(np.float32)
    if zero_point is not None:
        centred = centred - block_parameters(zero_point, codes.shape).astype(np.float32)
    return (centred * block_parameters(scale, codes.shape).astype(np.float32)).astype(scale.dtype)
