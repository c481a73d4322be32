"""The quantization modes: a float32 weight becomes codes of 1 to 8 bits with scales or a lookup table (LUT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .._core import count_nonfinite, encode_even_steps
from ..arrays import as_numbers, not_finite
from ..compression.palettes import kmeans_table
from ..errors import UnsuitableWeightError
from ..intake import NUMBERS, as_array, whole
from ..specs import in_bits
from ..suggestions import suggestion
from ..tensors import packed_size
from .weight_params import HALF_BITS, EncodedWeight, channel_layout

LutFunction = Callable[[int, Any], tuple[Any, Any]]

DEQUANTIZATION = "dequantization"
_ALIASES = {"kmeans": "kmeans_lut"}
QUANTIZATION_MODES = ("linear", "linear_symmetric", "linear_lut", "kmeans_lut", "custom_lut", DEQUANTIZATION)
"""Names of the modes of `quantize_weights`."""
_HALF_OVERFLOW = 65520.0  # half way from the largest number to the next, which would be even
_NEVER_TOO_LARGE = 2.0**124  # no step reaches infinity from there


class OutOfRangeError(UnsuitableWeightError):
    """Some values of a weight cannot be expressed in the requested form."""

    reason = "has values beyond the range of the form"


@dataclass(frozen=True)
class Quantization:
    """What to do to the weights of a neural network, checked.

    Parameters
    ----------
    nbits : int or None
        1 to 8, or 16 for half precision, whatever the mode; ignored for ``"dequantization"``.
    mode : str
        One of `QUANTIZATION_MODES`, or ``"kmeans"`` for ``"kmeans_lut"``.
    lut_function : callable, optional
        For ``"custom_lut"``.
    """

    nbits: int | None
    mode: str
    lut_function: LutFunction | None = None

    def __post_init__(self) -> None:
        mode = require_mode(self.mode, QUANTIZATION_MODES)
        object.__setattr__(self, "mode", mode)
        if self.restores:
            object.__setattr__(self, "nbits", None)
            return
        nbits = whole(self.nbits)
        if nbits is None or not (1 <= nbits <= 8 or nbits == HALF_BITS):
            raise ValueError(f"quantize_weights: nbits must be 1 to 8, or 16, not {self.nbits!r}")
        object.__setattr__(self, "nbits", nbits)
        if mode == "linear_symmetric" and self.nbits == 1:
            raise ValueError("quantize_weights: quantization_mode 'linear_symmetric' needs nbits of at least 2, not 1")
        if not self.to_half and (mode == "custom_lut") != callable(self.lut_function):
            verb = "needs" if mode == "custom_lut" else "does not take"
            raise ValueError(f"quantize_weights: quantization_mode {mode!r} {verb} lut_function, a callable")

    @property
    def restores(self) -> bool:
        """Whether weights become plain ones again."""
        return self.mode == DEQUANTIZATION

    @property
    def advice(self) -> tuple[str, ...]:
        """A mode that loses less in about the same size, if there is one."""
        if self.to_half or not self.mode.startswith("linear") or (self.nbits or HALF_BITS) > 4:
            return ()
        alternative = "quantization_mode='kmeans_lut' loses less in about the same size"
        return (f"linear steps lose much accuracy at {in_bits(self.nbits or HALF_BITS)}; {alternative}",)

    @property
    def to_half(self) -> bool:
        """Whether weights become half precision ones."""
        return self.nbits == HALF_BITS

    @property
    def description(self) -> str:
        """A short description."""
        if self.restores:
            return "to float32"
        return "to float16" if self.to_half else f"{in_bits(self.nbits or HALF_BITS)} {self.mode}"

    def encoded_bytes(self, count: int, channels: int) -> int:
        """Bytes of `count` weights in 1 to 8 bits, including scales or the table."""
        nbits = int(self.nbits or 0)
        return packed_size(count, nbits) + (8 * channels if self.has_scales else 4 * 2**nbits)

    @property
    def has_scales(self) -> bool:
        """Whether codes have scales and biases instead of a table."""
        return self.mode in ("linear", "linear_symmetric")

    def require_encodable(self, weight: NDArray[np.float32], channel_axis: int | None, num_threads: int = 1) -> None:
        """Raise the error that `encode`, or `to_half`, would raise, without encoding."""
        if self.to_half:
            require_half(weight, num_threads)
            return
        _require_finite(weight, num_threads)
        if self.has_scales and weight.size and largest_magnitude(weight) > _NEVER_TOO_LARGE:
            self.encode(weight, channel_axis, num_threads)

    def encode(self, weight: NDArray[np.float32], channel_axis: int | None, num_threads: int = 1) -> EncodedWeight:
        """Encode a weight in 1 to 8 bits.

        Parameters
        ----------
        weight : numpy.ndarray of float32
            Not empty.
        channel_axis : int or None
            Axis with a scale for each entry, for linear modes; None for one scale.
        num_threads : int
            Threads to use.

        Raises
        ------
        NonFiniteError
            If there are NaN or infinite values.
        OutOfRangeError
            If the scale would be infinite.
        """
        nbits = int(self.nbits or 0)
        if self.has_scales:
            return _linear(weight, nbits, channel_axis, num_threads, symmetric=self.mode == "linear_symmetric")
        _require_finite(weight, num_threads)
        if self.mode == "linear_lut":
            return _by_table(weight, nbits, _even_table(weight, nbits), num_threads)
        if self.mode == "kmeans_lut":
            return _kmeans(weight, nbits, num_threads)
        assert self.lut_function is not None
        return _custom(weight, nbits, self.lut_function)


def require_mode(mode: str, modes: Sequence[str]) -> str:
    """The mode with this name or alias; ValueError if there is none."""
    found = _ALIASES.get(mode, mode)
    if found not in modes:
        rule = f"quantization_mode must be {', '.join(map(repr, modes))}, not {mode!r}{suggestion(str(found), modes)}"
        raise ValueError(f"quantize_weights: {rule}")
    return found


def to_half(weight: NDArray[np.float32], num_threads: int | None = None) -> NDArray[np.float16]:
    """Round to half precision; raises OutOfRangeError where that would not be finite."""
    require_half(weight, num_threads)
    return kernels.to_float16(weight, num_threads=num_threads)


def require_half(weight: NDArray[np.float32], num_threads: int | None = None) -> None:
    """Raise OutOfRangeError where half precision would not be finite, NonFiniteError where float32 is not."""
    _require_finite(weight, num_threads)
    if weight.size and largest_magnitude(weight) >= _HALF_OVERFLOW:
        raise OutOfRangeError(f"quantize_weights: {largest_magnitude(weight):g} is beyond the range of float16")


def largest_magnitude(weight: NDArray[np.float32]) -> float:
    """The largest magnitude of finite weights."""
    return max(-float(weight.min()), float(weight.max()))


def _require_finite(weight: NDArray[np.float32], num_threads: int | None) -> None:
    if count_nonfinite(weight, num_threads):
        raise not_finite("quantize_weights", weight, num_threads)


def _linear(
    weight: NDArray[np.float32], nbits: int, channel_axis: int | None, num_threads: int, *, symmetric: bool
) -> EncodedWeight:
    """Linear codes.

    Scale and bias are those of coremltools, rounded to float32 as they are stored; each weight takes the nearest code
    for these, so no error is larger than with coremltools. No channel is too narrow: if the scale is below the
    subnormal numbers, the smallest of these is used.
    """
    layout = channel_layout(weight.shape, channel_axis)
    found = encode_even_steps(weight, layout, nbits, symmetric, num_threads)
    if found is None:
        _require_finite(weight, num_threads)
        raise OutOfRangeError("quantize_weights: the range of the values is beyond that of float32")
    scale, bias, codes = found
    return EncodedWeight(codes.reshape(weight.shape), nbits, scale=scale, bias=bias, channel_axis=channel_axis)


def _even_table(weight: NDArray[np.float32], nbits: int) -> NDArray[np.float32]:
    lowest, highest = float(weight.min()), float(weight.max())
    steps = np.arange(2**nbits, dtype=np.float64) / (2**nbits - 1)
    # Between the two ends, whatever their size: the difference of the largest floats is infinite as float32 only.
    table: NDArray[np.float32] = (lowest + steps * (highest - lowest)).astype(np.float32)
    return table


def _by_table(
    weight: NDArray[np.float32], nbits: int, table: NDArray[np.float32], num_threads: int | None
) -> EncodedWeight:
    """The nearest entry of an ascending table for each weight."""
    codes = kernels.assign(weight, table, num_threads=num_threads)
    return EncodedWeight(codes.reshape(weight.shape), nbits, lut=table + np.float32(0))


def _kmeans(weight: NDArray[np.float32], nbits: int, num_threads: int) -> EncodedWeight:
    table, indices, _ = kmeans_table(weight, nbits, num_threads)
    codes = indices if nbits == 8 else kernels.unpack_bits(indices, nbits, weight.size, num_threads=num_threads)
    return EncodedWeight(codes.reshape(weight.shape), nbits, lut=table.reshape(-1))


def _custom(weight: NDArray[np.float32], nbits: int, lut_function: LutFunction) -> EncodedWeight:
    given = weight.view()
    given.flags.writeable = False
    result = lut_function(nbits, given)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError("quantize_weights: lut_function must return a table and codes")
    with np.errstate(over="ignore"):
        table = as_numbers("quantize_weights", "the table of lut_function", result[0]).reshape(-1).astype(np.float32)
    if not 1 <= table.size <= 2**nbits or not np.isfinite(table).all():
        raise ValueError(
            f"quantize_weights: lut_function must return a table of 1 to {2**nbits} values that are finite as float32 "
            f"for {in_bits(nbits)}, not one of {table.size}"
        )
    codes = as_array("quantize_weights", "the codes of lut_function", result[1], NUMBERS)
    if codes.size != weight.size or not ((codes >= 0) & (codes < table.size) & (codes == np.floor(codes))).all():
        raise ValueError(
            f"quantize_weights: lut_function must return {weight.size} whole numbers from 0 to {table.size - 1} as "
            f"codes (shape {weight.shape}), not {codes.dtype} of shape {codes.shape}"
        )
    table = np.pad(table, (0, 2**nbits - table.size), mode="edge")
    return EncodedWeight(codes.astype(np.uint8).reshape(weight.shape), nbits, lut=table)
