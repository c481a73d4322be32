"""Evenly spaced values: ``scale * code + bias`` in float32, with codes found in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def choose_even_steps(
    values: NDArray[np.float32], nbits: int, *, symmetric: bool
) -> tuple[np.float32, np.float32] | None:
    """Return scale and bias for one group of finite values, or None if decoded values would be infinite.

    Parameters
    ----------
    values : numpy.ndarray of float32
        Not empty.
    nbits : int
        1 to 8; 2 to 8 if symmetric.
    symmetric : bool
        Whether the middle code represents zero.
    """
    lowest, highest = float(values.min()) + 0.0, float(values.max()) + 0.0
    most, half = 2**nbits - 1, 2 ** (nbits - 1)
    exact = max(-lowest, highest) / (half - 1) if symmetric else (highest - lowest) / most
    with np.errstate(over="ignore"):
        scale = np.float32(max(exact, _SMALLEST) if exact > 0 else 1)
        bias = np.float32(-half) * scale if symmetric else np.float32(lowest)
        reach = scale * np.float32(most)
    return (scale, bias) if np.isfinite(reach) and np.isfinite(bias) else None


def encode_even_steps(
    values: NDArray[np.float32], scale: np.float32, bias: np.float32, nbits: int, *, symmetric: bool
) -> NDArray[np.uint8]:
    """Return the nearest code of each finite value, ties to even; the lowest one is 1 if symmetric, else 0."""
    steps = np.rint((values.astype(np.float64) - float(bias)) / float(scale))
    return np.clip(steps, int(symmetric), 2**nbits - 1).astype(np.uint8)


def decode_even_steps(codes: NDArray[Any], scale: np.float32, bias: np.float32) -> NDArray[np.float32]:
    """Return the values of codes (uint8 or int8), rounded after the multiplication and after the addition."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = codes.astype(np.float32) * np.float32(scale) + np.float32(bias)
    return np.where(np.isnan(values), np.float32(np.nan), values)
