"""Ranges of the values that a model computes, and the scales and zero points that follow from them.

A range is the smallest and the largest value, and a histogram whose bins are as wide as a power of two and begin at
multiples of that. Values beyond it double the width of all bins, so that it depends on the values alone, not on their
order or division into samples; no value is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..coreml.program.quantize_pairs import NoParameters
from ..engine.activations import PairParameters
from ..errors import FormatError

BINS = 4096  # at most, and more than half of that, but where values are few
_PIECE = 1 << 16  # values counted at a time
_LEAST = -1000  # exponent of the width, for values that are all zero
_FINEST = 40  # binary digits from the largest magnitude to the narrowest bin
_SPLIT_GAP, _SPLIT_SHARE = 0.75, 0.01
_CANDIDATES, _ROUNDS = 48, 3  # of a search for the range of least squared error

Mode = Literal["linear", "linear_symmetric"]
Fit = Literal["minmax", "mse"]


@dataclass(eq=False)
class ActivationRange:
    """What is known of one value of a program over all samples.

    Attributes
    ----------
    minimum, maximum : float
        Of all finite elements; infinity and its negative if there are none.
    exponent : int
        The width of a bin is two to this power.
    start : int
        The first bin begins at `start` times the width.
    counts : numpy.ndarray of int64
        Elements in each bin.
    nonfinite : int
        How many elements were NaN or infinite.
    """

    minimum: float = math.inf
    maximum: float = -math.inf
    exponent: int = 0
    start: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    nonfinite: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Count elements, of any shape and floating-point type."""
        flat = np.asarray(values).reshape(-1)
        for first in range(0, flat.size, _PIECE):
            piece = flat[first : first + _PIECE].astype(np.float64)
            low, high = float(piece.min()), float(piece.max())
            if not (math.isfinite(low) and math.isfinite(high)):
                finite = piece[np.isfinite(piece)]
                self.nonfinite += piece.size - finite.size
                if not finite.size:
                    continue
                piece, low, high = finite, float(finite.min()), float(finite.max())
            self._reach(min(self.minimum, low), max(self.maximum, high))
            piece *= 2.0**-self.exponent
            np.floor(piece, out=piece)
            piece -= self.start
            self.counts += np.bincount(piece.astype(np.int64), minlength=self.counts.size)

    def merged(self, other: ActivationRange) -> ActivationRange:
        """The range of the elements of both."""
        known = [each for each in (self, other) if each.counts.size]
        result = ActivationRange(nonfinite=self.nonfinite + other.nonfinite)
        if known:
            result._reach(min(each.minimum for each in known), max(each.maximum for each in known))
        for each in known:
            counts, start = _coarser(each.counts, each.start, result.exponent - each.exponent)
            result.counts[start - result.start : start - result.start + counts.size] += counts
        return result

    def _reach(self, minimum: float, maximum: float) -> None:
        """Make the bins those of this range, which includes the present one."""
        if (minimum, maximum) == (self.minimum, self.maximum):
            return
        exponent = _exponent(minimum, maximum)
        start, end = (math.floor(math.ldexp(each, -exponent)) for each in (minimum, maximum))
        counts = np.zeros(end - start + 1, np.int64)
        if self.counts.size:
            present, first = _coarser(self.counts, self.start, exponent - self.exponent)
            counts[first - start : first - start + present.size] = present
        self.minimum, self.maximum = minimum, maximum
        self.exponent, self.start, self.counts = exponent, start, counts

    @property
    def is_split(self) -> bool:
        """Whether the values are in two groups so far apart that 8 bits would leave nothing of their differences.

        A mask that is added to the scores of attention makes such values: at least three quarters of the range are
        empty, with a hundredth of the values or more on either side, not all of them alike.
        """
        occupied = np.flatnonzero(self.counts)
        if occupied.size < 3:
            return False
        gaps = np.diff(occupied)
        place = int(gaps.argmax())
        below = int(self.counts[: occupied[place] + 1].sum())
        smaller = min(below, int(self.counts.sum()) - below)
        return bool(
            gaps[place] >= _SPLIT_GAP * (occupied[-1] - occupied[0]) and smaller >= _SPLIT_SHARE * self.counts.sum()
        )

    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin, within the range."""
        middles = np.ldexp(np.arange(self.start, self.start + self.counts.size) + 0.5, self.exponent)
        within: NDArray[np.float64] = np.clip(middles, self.minimum, self.maximum)
        return within

    def parameters(
        self, dtype: str = "float16", *, mode: Mode = "linear", fit: Fit = "minmax", target: str = "int8"
    ) -> PairParameters:
        """The scale and zero point that quantize such a value.

        Parameters
        ----------
        dtype : {"float16", "float32"}
            Type of the value, and so of the scale, which is rounded to it.
        mode : {"linear", "linear_symmetric"}
            Whether the range of levels is that of the values and zero, or symmetric around zero.
        fit : {"minmax", "mse"}
            Whether all values are within the range of levels, or the squared error over the histogram is least.
        target : {"int8", "uint8"}
            Type of the levels.

        Raises
        ------
        NoParameters
            If no value is known, or some are not finite.
        """
        if self.nonfinite:
            raise NoParameters("has values that are NaN or infinite")
        if not self.counts.size:
            raise NoParameters("no sample reached it")
        low, high = min(self.minimum, 0.0), max(self.maximum, 0.0)
        if fit == "mse":
            low, high = self._least_error(low, high, dtype, mode, target)
        return _parameters(low, high, dtype, mode, target)

    def squared_error(self, parameters: PairParameters) -> float:
        """Sum of the squared errors of quantization, each element taken as the middle of its bin."""
        occupied = np.flatnonzero(self.counts)
        return _squared_error(self.centers()[occupied], self.counts[occupied], parameters)

    def _least_error(self, low: float, high: float, dtype: str, mode: Mode, target: str) -> tuple[float, float]:
        """Bounds found by turns: one is searched, from its extreme inwards, while the other one is fixed."""
        occupied = np.flatnonzero(self.counts)
        centers, counts = self.centers()[occupied], self.counts[occupied]
        extremes, bounds = (low, high), [low, high]

        def error(pair: list[float]) -> float:
            return _squared_error(centers, counts, _parameters(pair[0], pair[1], dtype, mode, target))

        if mode == "linear_symmetric":
            largest = max(-low, high)
            shares = np.linspace(1.0, 0.1, 2 * _CANDIDATES)
            best = min(shares, key=lambda share: error([-largest * share, largest * share]))
            return -largest * float(best), largest * float(best)
        least = error(bounds)
        for _ in range(_ROUNDS):
            before = least
            for side in (0, 1):
                for share in np.linspace(1.0, 0.1, _CANDIDATES):
                    candidate = list(bounds)
                    candidate[side] = extremes[side] * float(share)
                    found = error(candidate)
                    if found < least:
                        least, bounds = found, candidate
            if least == before:
                break
        return bounds[0], bounds[1]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For a file of statistics."""
        return {
            "bounds": np.array([self.minimum, self.maximum], np.float64),
            "bins": np.array([self.exponent, self.start, self.nonfinite], np.int64),
            "counts": self.counts,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], where: str = "a range") -> ActivationRange:
        """The reverse of `to_arrays`.

        Raises
        ------
        FormatError
            If these are not the arrays of a range.
        """
        try:
            (minimum, maximum), counts = arrays["bounds"].tolist(), np.array(arrays["counts"])
            exponent, start, nonfinite = map(int, arrays["bins"].tolist())
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError(f"{where}: is damaged ({type(error).__name__}: {error})") from error
        found = cls(float(minimum), float(maximum), exponent, start, counts, nonfinite)
        if not counts.size and minimum == math.inf and maximum == -math.inf and nonfinite >= 0:
            return cls(nonfinite=nonfinite)
        expected = cls()
        fits = math.isfinite(minimum) and math.isfinite(maximum) and minimum <= maximum
        if fits:
            expected._reach(float(minimum), float(maximum))
        described = (expected.exponent, expected.start, expected.counts.shape, expected.counts.dtype)
        if (
            not fits
            or described != (exponent, start, counts.shape, counts.dtype)
            or (counts < 0).any()
            or nonfinite < 0
        ):
            raise FormatError(f"{where}: is damaged (its bins do not fit its bounds)")
        return found


def merged_ranges(ranges: Mapping[str, ActivationRange], groups: Iterable[Iterable[str]]) -> dict[str, ActivationRange]:
    """The same ranges, those of each group merged; groups that share a name are one."""
    owners: dict[str, set[str]] = {}
    for group in groups:
        names = set(group)
        for name in list(names):
            names |= owners.get(name, set())
        owners |= dict.fromkeys(names, names)
    result = dict(ranges)
    done: set[int] = set()
    for names in owners.values():
        known = sorted(name for name in names if name in ranges)
        if id(names) in done or not known:
            continue
        done.add(id(names))
        common = ranges[known[0]]
        for name in known[1:]:
            common = common.merged(ranges[name])
        result |= dict.fromkeys(known, common)
    return result


def _exponent(minimum: float, maximum: float) -> int:
    """The smallest width, as a power of two, with which `BINS` bins hold a range."""
    largest = max(abs(minimum), abs(maximum))
    if largest == 0:
        return _LEAST
    # Never less than for a part of the range, so that bins only ever become wider.
    exponent = max(_LEAST, math.frexp(largest)[1] - _FINEST)
    if maximum > minimum:
        exponent = max(exponent, math.frexp(maximum - minimum)[1] - BINS.bit_length() - 1)
    while math.floor(math.ldexp(maximum, -exponent)) - math.floor(math.ldexp(minimum, -exponent)) >= BINS:
        exponent += 1
    return exponent


def _coarser(counts: NDArray[np.int64], start: int, doublings: int) -> tuple[NDArray[np.int64], int]:
    """Counts in wider bins, and where these start."""
    if not doublings:
        return counts, start
    first, last = start >> doublings, (start + counts.size - 1) >> doublings
    places = (np.arange(start, start + counts.size) >> doublings) - first
    wider = np.zeros(last - first + 1, np.int64)
    np.add.at(wider, places, counts)
    return wider, first


def levels_of(mode: Mode, target: str) -> tuple[int, int]:
    """The lowest and the highest level, as coremltools has them."""
    if target == "uint8":
        return (0, 254) if mode == "linear_symmetric" else (0, 255)
    return (-127, 127) if mode == "linear_symmetric" else (-128, 127)


def _parameters(low: float, high: float, dtype: str, mode: Mode, target: str) -> PairParameters:
    lowest, highest = levels_of(mode, target)
    if mode == "linear_symmetric":
        high = max(-low, high)
        low = -high
    scale = _representable((high - low) / (highest - lowest), dtype)
    zero_point: int | None
    if mode == "linear_symmetric":
        zero_point = highest // 2 if target == "uint8" else None
    else:
        zero_point = int(np.clip(np.round(lowest - low / scale), lowest, highest))
    return without_zero_point(PairParameters(scale, zero_point, target))


def without_zero_point(parameters: PairParameters) -> PairParameters:
    """The same levels under another type where that needs no zero point, which Core ML runs faster.

    As coremltools' pass ``nullify_redundant_quantization_zero_point``: what is never negative becomes uint8.
    """
    if parameters.zero_point == 0:
        return PairParameters(parameters.scale, None, parameters.dtype)
    for dtype, zero_point, other in (("int8", -128, "uint8"), ("uint8", 128, "int8")):
        if (parameters.dtype, parameters.zero_point) == (dtype, zero_point):
            return PairParameters(parameters.scale, None, other)
    return parameters


def _representable(scale: float, dtype: str) -> float:
    """A scale as its type has it: not less than the smallest normal number, and 1 for a value that is always 0."""
    if scale == 0:
        return 1.0
    limits = np.finfo(dtype)
    return float(np.clip(scale, float(limits.tiny), float(limits.max)).astype(dtype))


def _squared_error(centers: NDArray[np.float64], counts: NDArray[np.int64], parameters: PairParameters) -> float:
    lowest, highest = (0, 255) if parameters.dtype == "uint8" else (-128, 127)
    shift = parameters.zero_point or 0
    levels = np.clip(np.round(centers / parameters.scale) + shift, lowest, highest)
    errors = (levels - shift) * parameters.scale - centers
    return float((counts * errors * errors).sum())
