"""Block-wise parameters: how scales and palettes (lookup tables, LUTs) broadcast over a tensor, by Core ML's rule.

A parameter with `counts[d]` entries along an axis of length `shape[d]` divides it into that many equal blocks, and
element i uses entry ``i // (shape[d] // counts[d])``.
"""

from __future__ import annotations

from math import gcd, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = tuple[int, ...]


def require_divisors(shape: tuple[int, ...], counts: Counts) -> None:
    """ValueError unless parameters with these counts divide the shape into blocks."""
    pairs = zip(shape, counts, strict=False)
    if len(counts) != len(shape) or any(count < 1 or size % count for size, count in pairs):
        raise ValueError(f"grid: {counts} entries must divide the axes (shape {shape})")


def common_grid(shape: tuple[int, ...], first: Counts, second: Counts) -> Counts:
    """The coarsest grid whose blocks lie within one block of each of two grids."""
    return tuple(
        size // gcd(size // a, size // b) if size else 1 for size, a, b in zip(shape, first, second, strict=True)
    )


def refine(parameters: NDArray[Any], counts: Counts) -> NDArray[Any]:
    """Repeat parameters so that they have `counts` entries along the first axes; other axes stay."""
    for axis, count in enumerate(counts):
        if count != parameters.shape[axis]:
            parameters = np.repeat(parameters, count // parameters.shape[axis], axis)
    return parameters


def fold_scale(
    lut: NDArray[Any], scale: NDArray[Any], shape: tuple[int, ...], zero_point: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Tables with the scale multiplied in: ``scale * (lut - zero_point)``, one table per block of the common grid.

    Parameters
    ----------
    lut : numpy.ndarray
        Shape (groups along each axis..., entries, 1); the scale's dtype, or int8 or uint8.
    scale : numpy.ndarray of float
        One axis per axis of `shape`.
    shape : tuple of int
        What both divide into blocks.
    zero_point : numpy.ndarray, optional
        In the scale's shape.

    Returns
    -------
    numpy.ndarray
        In the scale's dtype. Each entry is rounded as it would be after the look-up, so that the values are the same.
    """
    grid = common_grid(shape, lut.shape[:-2], scale.shape)
    tables, factors = refine(lut, grid), refine(scale, grid)[..., None, None]
    offsets = None if zero_point is None else refine(zero_point, grid)[..., None, None]
    return np.ascontiguousarray(shift_scale(tables, factors, offsets))


def shift_scale(data: NDArray[Any], scale: NDArray[Any], zero_point: NDArray[Any] | None) -> NDArray[Any]:
    """``scale * (data - zero_point)`` in the scale's dtype, or a wider zero point's; integer ones are taken exactly."""
    dtype = scale.dtype
    if zero_point is not None and zero_point.dtype.kind == "f":
        dtype = np.result_type(dtype, zero_point.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        centred = data.astype(dtype)
        if zero_point is not None:
            centred = centred - zero_point.astype(dtype)
        product: NDArray[Any] = (centred * scale.astype(dtype)).astype(scale.dtype, copy=False)
    return product


def spread(parameters: NDArray[Any]) -> NDArray[Any]:
    """View parameters with an axis of length 1 after each axis, to broadcast against `blocks`."""
    return parameters.reshape([length for count in parameters.shape for length in (count, 1)])


def blocks(array: NDArray[Any], counts: Counts) -> NDArray[Any]:
    """View a contiguous array with two axes for each axis: blocks, and elements of a block."""
    pairs = zip(array.shape, counts, strict=True)
    return array.reshape([length for size, count in pairs for length in (count, size // count)])


def folds(shape: tuple[int, ...], lut_shape: tuple[int, ...], scale_shape: tuple[int, ...], size: int) -> bool:
    """Whether tables with the scale multiplied in are scalar and not larger than their `size` weights."""
    grid = common_grid(shape, lut_shape[:-2], scale_shape)
    return lut_shape[-1] == 1 and prod(grid) * lut_shape[-2] <= max(size, 1 << 16)
