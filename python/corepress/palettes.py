"""Palettization of arrays: tables from k-means, even steps, distinct values, or given."""

from __future__ import annotations

from math import prod
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_finite_weight, checked_axis, group_layout
from .custom_palettes import palettize_by
from .errors import TooManyValuesError
from .specs import PALETTE_BITS, Palettize
from .tensors import PalettizedTensor

MOST_ENTRIES = 2 ** max(PALETTE_BITS)


@overload
def palettize(
    weight: list[Any],
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    lut: Any = None,
    num_threads: int | None = None,
) -> list[PalettizedTensor]: ...
@overload
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    lut: Any = None,
    num_threads: int | None = None,
) -> PalettizedTensor: ...
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    lut: Any = None,
    num_threads: int | None = None,
) -> PalettizedTensor | list[PalettizedTensor]:
    """Replace weights by indices into a table of ``2**nbits`` values, or one table per group of channels.

    Each weight takes its nearest entry, the lower one if two are equally near.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64, or list of them
        Any shape and strides; never written to. float64 is narrowed to float32. A list gives a list, and small tensors
        of it are worked on side by side.
    nbits : {1, 2, 3, 4, 6, 8}, optional
        Bits per index. Needed for ``"kmeans"`` and ``"uniform"``; otherwise as few as hold the entries.
    mode : {"kmeans", "uniform", "unique"}
        How the table is found. ``"kmeans"``: the optimum, no other table of that size has a smaller squared error, up
        to the rounding of its entries to the weight's dtype. ``"uniform"``: evenly spaced from the smallest to the
        largest weight. ``"unique"``: the distinct values, which loses nothing but the sign of zeros.
    granularity : {"per_tensor", "per_grouped_channel"}
        One table for the tensor, or one per `group_size` entries of `channel_axis`.
    group_size : int
        Channels that share a table.
    channel_axis : int, optional
        Axis that is grouped; None for axis 0.
    indivisible : {"skip", "nearest_divisor", "per_tensor", "error"}
        What to do where `group_size` does not divide the axis: take the nearest size that does, the smaller of two;
        or one table; or, for an array, raise IndivisibleError in both other cases.
    lut : array_like, optional
        A given table instead of `mode`: 1 to 256 finite values, 1-D, in any order, rounded to the weight's dtype. All
        groups share it.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    PalettizedTensor or list of PalettizedTensor
        With indices packed in row-major order, least significant bit first, ascending in value.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range, a group size that does not divide the axis (`IndivisibleError`), more distinct values
        than entries (`TooManyValuesError`), and NaN or infinite weights (`NonFiniteError`).

    Notes
    -----
    Optimal one-dimensional clustering after Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence
    clustering in 1D", arXiv:1701.07204, on the histogram of the weights. float32 tensors of more than 16,384 weights
    (a group's count) are clustered in some 32,768 buckets first, and cuts between entries then settled to the value.
    """
    weights = weight if isinstance(weight, list) else [weight]
    grouping: dict[str, Any] = {
        "granularity": granularity,
        "group_size": group_size,
        "channel_axis": channel_axis,
        "indivisible": indivisible,
    }
    if lut is not None:
        if mode != "kmeans":
            raise ValueError(f"palettize: give lut or mode {mode!r}, not both")
        table = _given_table(lut)
        nbits = _width_for(table.size, nbits)
        tensors = palettize_all(weights, Palettize(nbits=nbits, **grouping), num_threads, table)
    else:
        tensors = palettize_all(weights, Palettize(nbits=nbits, mode=mode, **grouping), num_threads)
    return tensors if isinstance(weight, list) else tensors[0]


def palettize_all(
    weights: list[Any], spec: Palettize, num_threads: int | None, table: NDArray[Any] | None = None
) -> list[PalettizedTensor]:
    """Palettize each weight as `spec` says, or with a given ascending table of float64."""
    arrays = [as_finite_weight("palettize", weight, num_threads) for weight in weights]
    groups = [_palette_groups(array, spec) for array in arrays]
    luts: list[NDArray[Any] | None] = [None] * len(arrays)
    nbits = spec.nbits
    if table is not None:
        assert nbits is not None
        luts = [_tables(array.dtype, [table] * prod(each), nbits) for array, each in zip(arrays, groups, strict=True)]
    elif spec.lut_function is not None:
        return [palettize_by(spec.lut_function, *each) for each in zip(arrays, groups, strict=True)]
    elif spec.mode == "unique":
        return [_palettize_unique(*each, nbits, num_threads) for each in zip(arrays, groups, strict=True)]
    assert nbits is not None
    return _encode(arrays, groups, luts, nbits, spec.mode, num_threads)


def _encode(
    arrays: list[NDArray[Any]],
    groups: list[tuple[int, ...]],
    luts: list[NDArray[Any] | None],
    nbits: int,
    mode: str,
    num_threads: int | None,
) -> list[PalettizedTensor]:
    layouts = [group_layout(array.shape, each) for array, each in zip(arrays, groups, strict=True)]
    encoded = _core.palettize(arrays, layouts, nbits, mode, luts, num_threads)
    return [
        PalettizedTensor(array.shape, indices, lut.reshape(*each, 2**nbits, 1), nbits)
        for array, each, (lut, indices) in zip(arrays, groups, encoded, strict=True)
    ]


def _palettize_unique(
    array: NDArray[Any], groups: tuple[int, ...], nbits: int | None, num_threads: int | None
) -> PalettizedTensor:
    most = MOST_ENTRIES if nbits is None else 2**nbits
    distinct = _core.distinct_values(array, group_layout(array.shape, groups), most, num_threads)
    values = [group for group in distinct if group is not None]
    if len(values) < len(distinct):
        rule = f"mode 'unique' needs at most {most} distinct values per table"
        raise TooManyValuesError(
            f"palettize: {rule}, but {len(distinct) - len(values)} have more (shape {array.shape})"
        )
    nbits = _width_for(max(group.size for group in values), nbits)
    return _encode([array], [groups], [_tables(array.dtype, values, nbits)], nbits, "kmeans", num_threads)[0]


def _palette_groups(array: NDArray[Any], spec: Palettize) -> tuple[int, ...]:
    """Number of groups along each axis."""
    if array.size == 0:
        raise ValueError(f"palettize: weight has no elements (shape {array.shape})")
    group_counts = [1] * array.ndim
    if spec.granularity == "per_grouped_channel":
        axis = checked_axis("palettize", "channel_axis", spec.channel_axis or 0, array.shape)
        fitted = spec.fitted(array.shape, axis)
        if fitted.granularity == "per_grouped_channel":
            group_counts[axis] = array.shape[axis] // fitted.group_size
    return tuple(group_counts)


def _given_table(lut: Any) -> NDArray[Any]:
    table = np.asarray(lut, np.float64)
    if table.ndim != 1 or not 1 <= table.size <= MOST_ENTRIES:
        raise ValueError(f"palettize: lut must be 1-D with 1 to {MOST_ENTRIES} entries, not shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("palettize: lut must be finite")
    return np.sort(table)


def _width_for(entries: int, nbits: int | None) -> int:
    """The fewest bits for so many entries, or `nbits` if they hold them."""
    fewest = next(width for width in PALETTE_BITS if entries <= 2**width)
    if nbits is not None and nbits < fewest:
        raise ValueError(f"palettize: a lut of {entries} entries needs {fewest} bits, not {nbits}")
    return fewest if nbits is None else nbits


def _tables(dtype: np.dtype[Any], tables: list[NDArray[Any]], nbits: int) -> NDArray[Any]:
    """Ascending tables, each filled up with its largest entry, in the weight's dtype; -0 becomes 0."""
    filled = [np.pad(table, (0, 2**nbits - table.size), mode="edge") for table in tables]
    with np.errstate(over="ignore"):
        luts: NDArray[Any] = np.array(filled, dtype) + dtype.type(0)
    if not np.isfinite(luts).all():
        raise ValueError(f"palettize: lut has entries beyond the range of {dtype}")
    return luts
