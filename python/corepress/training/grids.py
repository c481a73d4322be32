"""Scales and zero points of weights: from their range, or searched for the least squared error.

Codes are those of unsigned integers, as coremltools' layer-wise compression has them: symmetric ones have the middle of
the codes as zero point. Scales are rounded to float16, which is what packages store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compression import quantize

Array = NDArray[Any]

# Quantiles of a normal distribution, scaled to -1 to 1, with an exact zero: of 4 bits those of QLoRA (Dettmers et al.,
# arXiv:2305.14314, appendix E), of 3 bits those of bitsandbytes.
NORMAL_FLOATS: dict[int, tuple[float, ...]] = {
    4: (
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
        -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
        0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ),
    3: (-1.0, -0.4786292, -0.21714179, 0.0, 0.1609302, 0.33791524, 0.562617, 1.0),
}  # fmt: skip
SEARCHED_BITS = 4  # and fewer: with more, clipping gains nothing
_FACTORS = np.linspace(1.0, 0.5, 11)  # of the range, that are tried
_LEAST, _MOST = 2.0**-14, 65504.0  # of the numbers that float16 has with full precision


def storable(scale: Array) -> NDArray[np.float32]:
    """Scales rounded to float16; those that it does not have with full precision are left unchanged.

    Parameters
    ----------
    scale : numpy.ndarray of floats
    """
    single = np.asarray(scale, np.float32)
    inside = (single >= _LEAST) & (single <= _MOST)
    half = np.where(inside, single, 1).astype(np.float16).astype(np.float32)
    return np.where(inside, half, single)


def normal_float_entries(n_bits: int) -> NDArray[np.float32]:
    """The palette of normal floats, rounded to float16.

    Raises
    ------
    ValueError
        If n_bits is neither 3 nor 4.
    """
    if n_bits not in NORMAL_FLOATS:
        raise ValueError(f"normal floats have 3 or 4 bits, not {n_bits}; use weight_dtype uint3 or uint4")
    return np.array(NORMAL_FLOATS[n_bits], np.float16).astype(np.float32)


def scale_of_range(low: Array, high: Array, n_bits: int, symmetric: bool) -> tuple[NDArray[np.float32], Array]:
    """Scales and zero points by the range of values.

    Parameters
    ----------
    low, high : numpy.ndarray of floats
        The least and the largest value of each block.
    n_bits : int
    symmetric : bool

    Returns
    -------
    scale : numpy.ndarray of float32
    zero_point : numpy.ndarray of uint8
    """
    low, high, most = np.minimum(low, 0), np.maximum(high, 0), 2**n_bits - 1
    if symmetric:
        high = np.maximum(-low, high)
        low = -high
    nothing = high <= low
    low, high = np.where(nothing, np.float32(-1), low), np.where(nothing, np.float32(1), high)
    exact = (high - low) / np.float32(most)
    middle = np.full(exact.shape, 2 ** (n_bits - 1), np.float32)
    zero_point = middle if symmetric else np.clip(np.round(-low / exact), 0, most)
    return storable(exact), zero_point.astype(np.uint8)


def block_scales(
    matrix: NDArray[np.float32], blocks: tuple[int, int], n_bits: int, symmetric: bool, importance: Array
) -> tuple[NDArray[np.float32], Array]:
    """Scales and zero points of the blocks of a matrix; of few bits, searched.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (rows, columns)
    blocks : tuple of int
        How many there are along each axis.
    n_bits : int
    symmetric : bool
    importance : numpy.ndarray of float32
        Of the squared error of each weight, in the matrix's shape.

    Returns
    -------
    scale : numpy.ndarray of float32, of the shape of `blocks`
    zero_point : numpy.ndarray of uint8
    """
    if n_bits == 4:
        sizes = tuple(length // count for length, count in zip(matrix.shape, blocks, strict=True))
        found = quantize(
            matrix,
            dtype="int4" if symmetric else "uint4",
            mode="linear_symmetric" if symmetric else "linear",
            granularity="per_block",
            block_size=sizes,
            scale_search="mse",
            importance=importance,
        )
        zero_point = np.full(blocks, 8, np.uint8) if found.zero_point is None else found.zero_point
        return storable(found.scale), zero_point
    parts = _parts(matrix, blocks)
    low, high = parts.min(axis=2), parts.max(axis=2)
    ranged = scale_of_range(low, high, n_bits, symmetric)
    if n_bits > SEARCHED_BITS:
        return tuple(each.reshape(blocks) for each in ranged)  # type: ignore[return-value]

    def decoded(values: Array, scale: Array, zero_point: Array) -> Array:
        codes = np.clip(np.round(values / scale) + zero_point, 0, 2**n_bits - 1)
        return scale * (codes - zero_point)

    candidates = [scale_of_range(low * factor, high * factor, n_bits, symmetric) for factor in _FACTORS]
    scale, zero_point = _best(parts, _parts(importance, blocks), candidates, decoded)
    return scale.reshape(blocks), zero_point.reshape(blocks)


def normal_float_scales(
    matrix: NDArray[np.float32], blocks: tuple[int, int], n_bits: int, importance: Array
) -> NDArray[np.float32]:
    """Scales of normal floats, searched; parameters as for `block_scales`."""
    entries = normal_float_entries(n_bits)
    middles = (entries[1:] + entries[:-1]) / 2
    parts = _parts(matrix, blocks)
    largest = np.abs(parts).max(axis=2)
    largest = np.where(largest > 0, largest, np.float32(1))

    def decoded(values: Array, scale: Array, _: Array) -> Array:
        return scale * entries[np.searchsorted(middles, values / scale)]

    candidates = [(storable(largest * factor), largest) for factor in _FACTORS]
    return _best(parts, _parts(importance, blocks), candidates, decoded)[0].reshape(blocks)


def _parts(matrix: Array, blocks: tuple[int, int]) -> Array:
    """A matrix as (block rows, block columns, elements)."""
    rows, columns = (length // count for length, count in zip(matrix.shape, blocks, strict=True))
    divided = matrix.reshape(blocks[0], rows, blocks[1], columns).transpose(0, 2, 1, 3)
    return divided.reshape(*blocks, rows * columns)


def _best(
    parts: Array,
    importance: Array,
    candidates: list[tuple[Array, Array]],
    decoded: Callable[[Array, Array, Array], Array],
) -> tuple[Array, Array]:
    """Of each block, the candidate with the least squared error."""
    scale, zero_point = (each.copy() for each in candidates[0])
    rows = max(1, (1 << 20) // max(1, parts[0].size))
    for start in range(0, len(parts), rows):
        some = slice(start, start + rows)
        least = np.full(scale[some].shape, np.inf)
        for of_scale, of_zero_point in candidates:
            each = of_scale[some], of_zero_point[some].astype(np.float32)
            errors = decoded(parts[some], each[0][:, :, None], each[1][:, :, None]) - parts[some]
            loss = np.einsum("rbi,rbi,rbi->rb", errors, errors, importance[some])
            better = loss < least
            least = np.where(better, loss, least)
            scale[some] = np.where(better, of_scale[some], scale[some])
            zero_point[some] = np.where(better, of_zero_point[some], zero_point[some])
    return scale, zero_point
