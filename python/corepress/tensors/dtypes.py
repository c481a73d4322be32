"""The types of quantized codes and of their scales."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Bits per code, and the dtype that holds one: of floats, their bits.
QUANTIZED_DTYPES = {
    "int8": (8, np.int8),
    "uint8": (8, np.uint8),
    "int4": (4, np.int8),
    "uint4": (4, np.uint8),
    "int2": (2, np.int8),
    "uint2": (2, np.uint8),
    "float8_e4m3fn": (8, np.uint8),
    "float8_e5m2": (8, np.uint8),
    "float4_e2m1fn": (4, np.uint8),
}
CORE_ML_DTYPES = ("int8", "uint8", "int4", "uint4")  # of them, those that Core ML has
BINARY_SCALES = "float8_e8m0fnu"  # powers of two: an exponent less 127 in a byte


class FloatCode(NamedTuple):
    """Codes that are floats: a sign bit, an exponent, and a mantissa.

    Attributes
    ----------
    mantissa_bits, bias : int
        Bits of the mantissa, and what the stored exponent has too much.
    largest : float
        The largest finite value.
    special : int
        The smallest code, without its sign, that is infinite or NaN.
    """

    mantissa_bits: int
    bias: int
    largest: float
    special: int


FLOAT_CODES = {
    "float8_e4m3fn": FloatCode(3, 7, 448.0, 0x7F),
    "float8_e5m2": FloatCode(2, 15, 57344.0, 0x7C),
    "float4_e2m1fn": FloatCode(1, 1, 6.0, 0x80),
}


def values_of_codes(quantized_dtype: str) -> NDArray[np.float32]:
    """What each code of a float type stands for, in the order of their bits: 256 values, or 16 of 4 bits."""
    nbits, _ = QUANTIZED_DTYPES[quantized_dtype]
    form = FLOAT_CODES[quantized_dtype]
    codes = np.arange(2 ** (nbits - 1))
    exponents, mantissas = codes >> form.mantissa_bits, codes & (2**form.mantissa_bits - 1)
    significands = np.where(exponents > 0, 2**form.mantissa_bits, 0) + mantissas
    values = np.ldexp(significands.astype(np.float64), np.maximum(exponents, 1) - form.bias - form.mantissa_bits)
    values[form.special :] = np.nan
    if form.special < codes.size - 1:  # with more than one of them, the first is infinity
        values[form.special] = np.inf
    return np.concatenate([values, -values]).astype(np.float32)


def exponents_of(scale: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Powers of two as bytes: their exponents plus 127."""
    return (scale.view(np.uint32) >> 23).astype(np.uint8)


def powers_of_two(exponents: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The inverse of `exponents_of`."""
    bits = exponents.astype(np.uint32) << 23
    return np.where(exponents == 0, np.uint32(1 << 22), bits).astype(np.uint32).view(np.float32)


def are_powers_of_two(scale: NDArray[Any]) -> bool:
    """Whether all are from 2**-127 to 2**127, and float32."""
    if scale.dtype != np.float32:
        return False
    bits = scale.view(np.uint32)
    normal = ((bits & 0x007FFFFF) == 0) & (bits > 0) & (bits < 0x7F800000)
    return bool((normal | (bits == 1 << 22)).all())
