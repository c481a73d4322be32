"""Palettes (lookup tables, LUTs) from a caller's function, as in coremltools' ``mode="custom"``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import pack_bits
from ..arrays import as_numbers, rounded_to
from ..intake import INTEGERS, as_array
from ..specs import PALETTE_BITS
from ..tensors import PalettizedTensor, packed_size
from .tables import MOST_ENTRIES


def palettize_by(
    lut_function: Callable[[Any], tuple[Any, Any]], array: NDArray[Any], group_counts: tuple[int, ...]
) -> PalettizedTensor:
    """Palettize with the tables and indices that a function returns.

    Parameters
    ----------
    lut_function : callable
        Given a group of the weight, a read-only array of the weight's rank: returns a table, 1-D with 1 to 256 finite
        values in any order, and whole numbers below its length in the group's shape (or as many in one row).
    array : numpy.ndarray of float16, bfloat16 or float32
        The weight.
    group_counts : tuple of int
        Number of groups along each axis.

    Returns
    -------
    PalettizedTensor
        Its tables have the fewest entries that hold all of them; they ascend, and repeat their largest value.

    Raises
    ------
    ValueError
        For a table or indices that are not as described.
    """
    codes = np.empty(array.shape, np.uint8)
    tables = []
    readonly = array.view()
    readonly.flags.writeable = False
    for place in _places(array.shape, group_counts):
        group = readonly[place]
        table, indices = _table_and_indices(lut_function(group))
        table = _checked_table(table, array.dtype)
        indices = _checked_indices(indices, table.size, group.shape)
        order = np.argsort(table, kind="stable")
        rank = np.zeros(MOST_ENTRIES, np.uint8)  # of every byte, in case indices change once they are checked
        rank[order] = np.arange(table.size)
        codes[place] = rank[indices.astype(np.uint8)]
        tables.append(table[order])
    most = max(table.size for table in tables)
    nbits = next(width for width in PALETTE_BITS if most <= 2**width)
    lut = np.array([np.pad(table, (0, 2**nbits - table.size), mode="edge") for table in tables])
    indices = np.empty(packed_size(codes.size, nbits), np.uint8)
    pack_bits(codes.reshape(-1), nbits, False, False, indices)
    return PalettizedTensor(array.shape, indices, lut.reshape(*group_counts, 2**nbits, 1), nbits)


def _places(shape: tuple[int, ...], group_counts: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The groups in row-major order."""
    sizes = [length // count for length, count in zip(shape, group_counts, strict=True)]
    for index in product(*map(range, group_counts)):
        yield tuple(slice(each * size, (each + 1) * size) for each, size in zip(index, sizes, strict=True))


def _table_and_indices(result: Any) -> tuple[Any, Any]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise ValueError("palettize: lut_function must return a table and indices")
    return result[0], result[1]


def _checked_table(given: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    table = as_numbers("palettize", "the table of lut_function", given)
    if table.ndim == 2 and table.shape[1] == 1:
        table = table[:, 0]
    valid = table.ndim == 1 and 1 <= table.size <= MOST_ENTRIES
    rounded = rounded_to(dtype, table) if valid else table
    if not valid or not np.isfinite(rounded).all():
        raise ValueError(
            f"palettize: lut_function must return a table of 1 to {MOST_ENTRIES} values that are finite as {dtype}, "
            f"not one of shape {table.shape}"
        )
    return rounded


def _checked_indices(given: Any, entries: int, shape: tuple[int, ...]) -> NDArray[Any]:
    indices, size = as_array("palettize", "the indices of lut_function", given, INTEGERS), prod(shape)
    if indices.size != size:
        raise ValueError(
            f"palettize: lut_function must return {size} whole numbers as indices (shape {shape}), not "
            f"{indices.dtype} of shape {indices.shape}"
        )
    if size and not (indices.min() >= 0 and indices.max() < entries):
        raise ValueError(f"palettize: lut_function must return indices from 0 to {entries - 1}")
    return indices.reshape(shape)
