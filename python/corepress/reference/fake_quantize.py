"""Fake quantization with learned steps in NumPy, in the precision of what is given; `corepress._core` has the kernels.

With bounds less the zero point, low and high, and n_i = rint(clip(x_i / scale, low, high)):

    y_i = scale n_i,   inside_i = [(low - 1/2) scale <= x_i <= (high + 1/2) scale],   dL/dx_i = g_i inside_i,
    dL/dscale = sum_i g_i (n_i - inside_i x_i / scale),   dL/dzero_point = -scale sum_i g_i (1 - inside_i).

Source: Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization",
2020.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def fake_quantize(values: Array, scale: float, zero_point: float, ends: tuple[int, int]) -> Array:
    """Values that integers from ends[0] to ends[1] express."""
    _, integers = _rounded(values, scale, zero_point, ends)
    found: Array = integers * values.dtype.type(scale)
    return found


def fake_quantize_gradient(
    values: Array, gradient: Array, scale: float, zero_point: float, ends: tuple[int, int]
) -> tuple[Array, float, float]:
    """The gradients by values, scale and zero point."""
    number = values.dtype.type
    quotients, integers = _rounded(values, scale, zero_point, ends)
    low, high = ((number(end) - number(zero_point)) * number(scale) for end in (ends[0] - 0.5, ends[1] + 0.5))
    inside = (values >= low) & (values <= high)
    by_values = np.where(inside, gradient, number(0))
    by_scale = float((gradient * (integers - np.where(inside, quotients, number(0)))).sum(dtype=np.float64))
    return by_values, by_scale, -scale * float((gradient - by_values).sum(dtype=np.float64))


def _rounded(values: Array, scale: float, zero_point: float, ends: tuple[int, int]) -> tuple[Array, Array]:
    """Quotients, and integers less the zero point."""
    number = values.dtype.type
    quotients = values * (number(1) / number(scale))
    low, high = (number(end) - number(zero_point) for end in ends)
    return quotients, np.rint(np.clip(quotients, low, high))
