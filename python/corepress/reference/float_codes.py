"""Quantization of one block to floats of 8 or 4 bits, and scales that are powers of two."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .affine import choose_scale, in_lanes, moments_of, rough_moments_by, rounded_scale, scale_candidates
from .errors import error_sums
from .rounding import FORMATS, step

# Bits of a code and of its mantissa, what exponents have too much, and the largest value.
FLOATS = {
    "float8_e4m3fn": (8, 3, 7, 448.0),
    "float8_e5m2": (8, 2, 15, 57344.0),
    "float4_e2m1fn": (4, 1, 1, 6.0),
}


def magnitudes(dtype: str) -> NDArray[np.float32]:
    """The values from 0 to the largest, each at the place of its code."""
    _, mantissa_bits, bias, largest = FLOATS[dtype]
    values = []
    for code in range(256):
        exponent, mantissa = divmod(code, 2**mantissa_bits)
        significand = mantissa + (2**mantissa_bits if exponent else 0)
        values.append(math.ldexp(significand, max(exponent, 1) - bias - mantissa_bits))
    return np.array([value for value in values if value <= largest], np.float32)


def float_codes(quotients: NDArray[np.float32], dtype: str) -> NDArray[np.uint8]:
    """The nearest value of the format for each number: ties to the even code, beyond the largest the largest."""
    table = magnitudes(dtype)
    middles = (table[1:].astype(np.float64) + table[:-1]) / 2
    sizes = np.abs(quotients).astype(np.float64)
    below = np.searchsorted(middles, sizes, "left")  # the lower code of a tie
    tied = (below < middles.size) & (middles[np.minimum(below, middles.size - 1)] == sizes)
    codes = below + (tied & (below % 2 == 1))
    signs = np.where(np.signbit(quotients), 2 ** (FLOATS[dtype][0] - 1), 0)
    found: NDArray[np.uint8] = (codes | signs).astype(np.uint8)
    return found


def float_values(codes: NDArray[np.uint8], dtype: str) -> NDArray[np.float32]:
    """What codes of finite values stand for."""
    sign = 2 ** (FLOATS[dtype][0] - 1)
    values = magnitudes(dtype)[codes & (sign - 1)]
    signed: NDArray[np.float32] = np.where(codes & sign, -values, values)
    return signed


def decode_floats(codes: NDArray[np.uint8], scale: Any, dtype: str, decoded: Any) -> NDArray[Any]:
    """Codes times the scale: the product in float32, rounded once more to the weight's dtype."""
    return (float_values(codes, dtype) * np.float32(scale)).astype(decoded)


class _Block:
    """Values and how they are stored."""

    def __init__(self, values: NDArray[Any], dtype: str | tuple[int, int]) -> None:
        self.values, self._dtype = values, dtype
        if isinstance(dtype, str):
            self.middle, self.largest = 0, FLOATS[dtype][3]
        else:  # the zero point of unsigned codes, whose number is odd, is the middle one
            self.middle = 0 if dtype[0] < 0 else (dtype[1] + 1) // 2
            self.largest = float(dtype[1] - self.middle)

    def codes(self, scale: Any) -> NDArray[Any]:
        if isinstance(self._dtype, str):
            with np.errstate(over="ignore", under="ignore"):
                return float_codes(self.values.astype(np.float32) / np.float32(scale), self._dtype)
        quotients = np.rint(self.values.astype(np.float32) / np.float32(scale)).astype(np.float64)
        codes: NDArray[np.int64] = np.clip(quotients + self.middle, *self._dtype).astype(np.int64)
        return codes

    def decoded(self, scale: Any) -> NDArray[Any]:
        if isinstance(self._dtype, str):
            return decode_floats(self.codes(scale), scale, self._dtype, self.values.dtype)
        products = (self.codes(scale).astype(np.float32) - np.float32(self.middle)) * np.float32(scale)
        return products.astype(self.values.dtype)

    def error(self, scale: Any) -> float:
        return in_lanes((self.values.astype(np.float64) - self.decoded(scale).astype(np.float64)) ** 2)

    def is_usable(self, scale: Any) -> bool:
        """Whether the outermost codes decode to finite values."""
        ends = [self.largest, -self.largest]
        if not isinstance(self._dtype, str):
            ends = [code - self.middle for code in self._dtype]
        with np.errstate(over="ignore"):
            products = (np.array(ends, np.float32) * np.float32(scale)).astype(self.values.dtype)
        return bool(np.isfinite(products.astype(np.float64)).all())


def choose_binary_scale(values: NDArray[Any], dtype: str | tuple[int, int]) -> np.float32:
    """The smallest power of two by which the largest magnitude becomes at most the largest code, within bounds.

    Parameters
    ----------
    values : numpy.ndarray
        Finite.
    dtype : str or tuple of int
        A float type, or the smallest and the largest code of a symmetric integer type.
    """
    block = _Block(values, dtype)
    magnitude = float(np.abs(values.astype(np.float64)).max())
    if magnitude == 0:
        return np.float32(1)
    exponent = -127
    while exponent < 127 and math.ldexp(block.largest, exponent) < magnitude:
        exponent += 1
    while not block.is_usable(math.ldexp(1, exponent)):
        exponent -= 1
    return np.float32(math.ldexp(1, exponent))


def quantize_binary(
    values: NDArray[Any], dtype: str | tuple[int, int], search_scale: bool = False
) -> tuple[NDArray[Any], np.float32]:
    """Codes and a scale that is a power of two; the search also tries those next to it: two below and one above.

    Parameters
    ----------
    values : numpy.ndarray of float16, bfloat16 or float32
        Finite.
    dtype : str or tuple of int
        As for `choose_binary_scale`.
    search_scale : bool
        Whether to take the one of the least squared error; of equal ones the one chosen without a search.
    """
    block, best = _Block(values, dtype), choose_binary_scale(values, dtype)
    if search_scale:
        start, least = float(best), block.error(best)
        for factor in (0.5, 0.25, 2.0):
            scale = start * factor
            if least == 0 or not 2.0**-127 <= scale <= 2.0**127 or not block.is_usable(scale):
                continue
            error = block.error(np.float32(scale))
            if error < least:
                best, least = np.float32(scale), error
    return block.codes(best), best


def quantize_floats(values: NDArray[Any], dtype: str, search_scale: bool = False) -> tuple[NDArray[np.uint8], Any]:
    """Codes and a scale in the values' dtype: the largest magnitude over the largest code.

    Of a subnormal scale and the next one above, the one with the smaller squared error is taken. The search is that
    for integers, with the least-squares scale for the codes and the codes for that scale.

    Parameters
    ----------
    values : numpy.ndarray of float16, bfloat16 or float32
        Finite.
    dtype : str
        Of `FLOATS`.
    search_scale : bool
        Whether to search.
    """
    block = _Block(values, dtype)
    ends = (-block.largest, block.largest)
    exact = values.astype(np.float64)
    best, _ = choose_scale(float(exact.min()), float(exact.max()), ends, True, values.dtype)  # type: ignore[arg-type]
    if float(best) < FORMATS[best.dtype.name].smallest_normal:
        scales = [best, step(best, 1)]
        errors = [error_sums(values, block.decoded(scale))[0] for scale in scales]
        best = scales[errors.index(min(errors))]
    if search_scale:
        best = _search_scale(block, best, dtype)
    return block.codes(best), best


def _search_scale(block: _Block, best: Any, dtype: str) -> Any:
    """The three candidates whose codes explain most of the values' squares are improved."""
    least, ends = block.error(best), (-block.largest, block.largest)
    if least == 0:
        return best
    candidates = scale_candidates(block.values, best, 0, ends, True)  # type: ignore[arg-type]
    fits = [_rough_moments(block, candidates[0][0], scale, dtype) for scale, _ in candidates]
    for _ in range(3):
        explained = [product * product / square if square else 0.0 for product, square in fits]
        if max(explained, default=0.0) <= 0:
            break
        moments = fits[explained.index(max(explained))]
        best, least = _better(block, best, least, moments)
        for _ in range(6):
            before = least
            best, least = _better(block, best, least, moments_of(block.values, float_values(block.codes(best), dtype)))
            if least == before:
                break
        fits = [fit for fit in fits if fit != moments]
    return best


def _rough_moments(block: _Block, first_scale: Any, scale: Any, dtype: str) -> tuple[float, float]:
    """As for integers; codes are rounded by splitting, ties either way, and the smallest ones like integers."""
    _, mantissa_bits, bias, largest = FLOATS[dtype]
    splitter = np.float32(2 ** (23 - mantissa_bits) + 1)
    least_normal = np.float32(math.ldexp(1, 1 - bias))
    anchor = np.float32(1.5 * math.ldexp(1, 24 - bias - mantissa_bits))

    def rounded(quotients: NDArray[np.float32]) -> NDArray[np.float32]:
        inside = np.clip(quotients, np.float32(-largest), np.float32(largest))
        split = inside * splitter
        normal, subnormal = split - (split - inside), (inside + anchor) - anchor
        return np.where(np.abs(inside) < least_normal, subnormal, normal)

    return rough_moments_by(block.values, first_scale, scale, rounded)


def _better(block: _Block, best: Any, least: float, moments: tuple[float, float]) -> tuple[Any, float]:
    """The better of a scale and the least-squares one of some codes, rounded to the values' dtype, and its error."""
    if not moments[0] > 0:
        return best, least
    ends = (-block.largest, block.largest)
    rounded = rounded_scale(block.values.dtype, moments[0] / moments[1], 0, ends)  # type: ignore[arg-type]
    if rounded is None:
        return best, least
    error = block.error(rounded[0])
    return (rounded[0], error) if error < least else (best, least)
