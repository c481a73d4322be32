"""Numbers rounded to the formats of weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Format(NamedTuple):
    digits: int  # of the significand, the leading one included
    exponent: int  # the smallest of a normal number

    @property
    def smallest(self) -> float:
        return math.ldexp(1.0, self.exponent + 1 - self.digits)

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.exponent)

    @property
    def overflow(self) -> float:
        """Half way from the largest finite number to the next power of two."""
        return math.ldexp(2.0 - math.ldexp(1.0, -self.digits), 1 - self.exponent)


FORMATS = {"float16": Format(11, -14), "bfloat16": Format(8, -126), "float32": Format(24, -126)}


def to_float16(values: ArrayLike) -> NDArray[np.float16]:
    """Round to half precision, to nearest, ties to even, from float64 at once.

    Parameters
    ----------
    values : array_like of float
        Infinities and NaN stay; 65520 and more becomes infinite.
    """
    return round_to(values, np.float16)


def round_to(values: ArrayLike, dtype: Any) -> NDArray[Any]:
    """Round float64 numbers to float16, bfloat16 or float32, to nearest, ties to even."""
    form = FORMATS[np.dtype(dtype).name]
    numbers = np.asarray(values, np.float64)
    _, exponents = np.frexp(numbers)
    exponents = np.where(np.isfinite(numbers), exponents, 0)  # those of infinities and NaN are left open
    spacing = np.ldexp(1.0, np.maximum(exponents, form.exponent + 1) - form.digits)  # around each number
    with np.errstate(invalid="ignore"):
        rounded = np.rint(numbers / spacing) * spacing
    rounded = np.where(np.abs(numbers) >= form.overflow, np.copysign(np.inf, numbers), rounded)
    return np.where(np.isnan(numbers), np.nan, rounded).astype(dtype)


def step(value: Any, steps: int) -> Any:
    """Return the number of the same format `count` places above a positive one."""
    pattern = np.array([value]).view(f"i{value.dtype.itemsize}")
    return (pattern + np.array(steps, pattern.dtype)).view(value.dtype)[0]
