"""Codes chosen so that a layer's outputs change little, by second moments of its inputs.

The tables and scales are those that are found without such data; the codes, or the values that pruning keeps, are found
one input channel after another, each making up for the errors of the others. `corepress.reference.error_feedback` has
the algorithm and its sources.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._core import (
    KeptFactors,
    column_pivots,
    feed_back_codes,
    feed_back_values,
    kept_factors,
    normal_equations,
    pack_bits,
)
from ..arrays import as_weight, contiguous, rounded_to
from ..intake import FLOATS, as_array
from ..specs import Palettize, Prune, Quantize, Spec
from ..tensors import (
    QUANTIZED_DTYPES,
    CompressedTensor,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
    ones_of,
    pack_codes,
    packed_size,
)
from .matrix_view import MatrixView

Array: TypeAlias = NDArray[Any]

SWEEPS = 1  # over all columns after the first pass
REFITS = {1: 2, 2: 2, 3: 1}  # by bits: how often a palette is fitted to its codes
ROWS_OF_REFIT = 256  # of a table, evenly spaced: enough for 8 entries
_MOST_FACTORS = 1 << 26  # numbers in double precision that are kept of one weight; more are made each time


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a layer's inputs, checked.

    Attributes
    ----------
    view : MatrixView
        How the weight multiplies the inputs.
    hessian : numpy.ndarray of float32 or float64, shape (groups or 1, blocks, c, c)
        E[x x^T] for each group of inputs, block by block of `c` columns.
    dampening : float
        How many times the mean of the diagonal is added to it.
    kept : list or None
        Where the factors are kept for all that is made with these moments; None: they are made each time.
    rows_of_refit : int
        Rows of a table, at most, that palettes of few bits are fitted to; 0 fits none.
    sweeps : int
        How often all columns are rounded again after the first pass.
    """

    view: MatrixView
    hessian: Array
    dampening: float
    kept: list[KeptFactors | None] | None = None
    rows_of_refit: int = ROWS_OF_REFIT
    sweeps: int = SWEEPS

    def factors(self, num_threads: int) -> KeptFactors | None:
        """The factors, if they are kept and not too large; made when they are first used."""
        if self.kept is None:
            return None
        if not self.kept:
            self.kept.append(kept_factors(self.view.columns, self.hessian, self.dampening, _MOST_FACTORS, num_threads))
        return self.kept[0]

    def importance(self) -> NDArray[np.float32]:
        """The diagonal for each element of the weight."""
        view = self.view
        diagonal = np.einsum("gbii->gbi", self.hessian).reshape(len(self.hessian), -1)[:, : view.columns]
        largest = diagonal.max(initial=0)
        relative = np.maximum(diagonal / largest if largest > 0 else diagonal, 0).astype(np.float32)
        return view.restore(np.broadcast_to(relative[:, None, :], (view.groups, view.rows, view.columns)))


def checked_moments(
    verb: str, hessian: Any, view: MatrixView | None, dampening: Any, shape: tuple[int, ...], axis: int
) -> Moments:
    """Second moments that fit a weight.

    Parameters
    ----------
    verb : str
        The caller's name, for messages.
    hessian : array_like of floats, or Moments
        Shapes (c, c), (blocks, c, c) or (groups, blocks, c, c); with groups and one block each, (groups, c, c).
        Moments are those of an earlier call, for a weight with the same columns.
    view : MatrixView or None
        How the weight multiplies the inputs; None: its rows are `axis`.
    dampening : float
        Not negative.
    shape : tuple of int
        Of the weight.
    axis : int
        The output channels'.

    Raises
    ------
    TypeError
        If the hessian is not an array of floats.
    ValueError
        If it does not fit the weight, is not finite, or has a negative diagonal.
    """
    if isinstance(hessian, Moments):
        return replace(hessian, view=replace(hessian.view, shape=shape))
    if view is None:
        if not shape:
            raise ValueError(f"{verb}: hessian is for weights with rows and columns, not for a scalar")
        view = MatrixView.of_output_axis(shape, axis)
    if view.shape != shape:
        raise ValueError(f"{verb}: hessian has a view of shape {view.shape}, the weight {shape}")
    if not isinstance(dampening, int | float | np.floating) or isinstance(dampening, bool) or not 0 <= dampening < inf:
        raise ValueError(f"{verb}: dampening must be a number from 0 on, not {dampening!r}")
    given = as_array(verb, "hessian", hessian, FLOATS)
    moments = contiguous(given, given.dtype if given.dtype in (np.float32, np.float64) else np.float32)
    size = moments.shape[-1] if moments.ndim else 0
    if not (2 <= moments.ndim <= 4 and size >= 1 and moments.shape[-2] == size):
        raise ValueError(
            f"{verb}: hessian must have shape (c, c), (blocks, c, c) or (groups, blocks, c, c), not {moments.shape}"
        )
    if moments.ndim == 3 and view.groups > 1 and len(moments) == view.groups and size >= view.columns:
        moments = moments[:, None]
    moments = moments.reshape((1,) * (4 - moments.ndim) + moments.shape)
    if moments.shape[0] not in (1, view.groups) or moments.shape[1] * size < view.columns:
        of_groups = f" in {view.groups} groups" if view.groups > 1 else ""
        raise ValueError(
            f"{verb}: hessian has shape {given.shape}, the weight {view.columns} columns{of_groups} (shape {shape})"
        )
    least, most = float(moments.min()), float(moments.max())  # NaN if there is one
    if not -inf < least <= most < inf:
        raise ValueError(f"{verb}: hessian must be finite, not {least:g} to {most:g}")
    lowest = float(np.einsum("gbii->gbi", moments).min())
    if lowest < 0:
        raise ValueError(f"{verb}: hessian must have a diagonal of squares, not {lowest:g}")
    return Moments(view, moments, float(dampening))


def hessian_axis(spec: Spec) -> int:
    """The axis whose entries are the rows where no view is given."""
    return 0 if isinstance(spec, Prune) else spec.channel_axis or 0


def output_error(weight: Any, tensor: CompressedTensor | Any, hessian: Any, view: MatrixView | None = None) -> float:
    """The mean squared error of a layer's outputs, summed over them: tr(E H E^T), E the errors of the weights.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        The original; float64 is rounded to float32.
    tensor : CompressedTensor or array_like
        What to compare with.
    hessian : array_like of float32 or float64
        Second moments E[x x^T] of the inputs: (c, c), or block by block of columns (blocks, c, c), with a leading axis
        of groups if the view has some. What is beyond the columns is ignored.
    view : MatrixView, optional
        How the weight multiplies the inputs; None: axis 0 has the outputs.

    Returns
    -------
    float
        Over all groups and blocks, in double precision.

    Raises
    ------
    ValueError
        If shapes do not fit, or the hessian is not finite.

    Examples
    --------
    >>> output_error(np.float32([[1, 2]]), np.float32([[1, 2.5]]), np.diag([1.0, 4.0]))
    1.0
    """
    first = as_weight("output_error", weight)
    second = tensor.dense() if isinstance(tensor, CompressedTensor) else as_weight("output_error", tensor, "tensor")
    if first.shape != second.shape:
        raise ValueError(f"output_error: weight has shape {first.shape}, tensor has {second.shape}")
    moments = checked_moments("output_error", hessian, view, 0.0, first.shape, 0)
    difference = moments.view.matrices(first).astype(np.float64) - moments.view.matrices(second)
    size, total = moments.hessian.shape[2], 0.0
    for group, errors in enumerate(difference):
        of_group = moments.hessian[group % len(moments.hessian)]
        for block, begin in enumerate(range(0, errors.shape[1], size)):
            part = errors[:, begin : begin + size]
            count = part.shape[1]
            total += float(((part @ of_group[block, :count, :count].astype(np.float64)) * part).sum())
    return total


@dataclass(frozen=True)
class TableNumbers:
    """The number of the table of each weight: that of its row plus that of its column."""

    rows: NDArray[np.int32]  # (groups, rows)
    columns: NDArray[np.int32] | None  # (groups, columns)

    @classmethod
    def of(cls, view: MatrixView, counts: tuple[int, ...]) -> TableNumbers:
        """Tables in row-major order of blocks, of which there are some along each axis."""
        rows, columns = np.zeros((view.groups, view.rows), np.int32), np.zeros((view.groups, view.columns), np.int32)
        for axis, count in enumerate(counts):
            if count == 1:
                continue
            along_rows, entries = view.positions(axis)
            number = (entries // (view.shape[axis] // count) * prod(counts[axis + 1 :])).astype(np.int32)
            if along_rows:
                rows += number
            else:
                columns += number
        return cls(rows, columns if columns.any() else None)


def palettize_codes(weight: Array, tensor: PalettizedTensor, moments: Moments, num_threads: int) -> PalettizedTensor:
    """Find the codes of a palettized weight again, with error feedback, and few-bit palettes too.

    Parameters
    ----------
    weight : numpy.ndarray
        The weight that was palettized, contiguous and finite; zero where a sparse tensor has no value.
    tensor : PalettizedTensor
        What it was palettized to, or the values of a sparse tensor.
    moments : Moments
        Of the inputs.
    num_threads : int
        Threads to use.
    """
    length = tensor.cluster_dim
    view = moments.view if length == 1 else _vector_view(moments.view, tensor)
    matrices, bits = matrices_of(weight, view, tensor)
    tables = tensor.table.reshape(-1, 2**tensor.nbits, length).astype(np.float64)
    counts = tensor.group_counts
    if tensor.scale is not None:
        tables, counts = _scaled(tables, tensor), tensor.scale.shape
    numbers = TableNumbers.of(view, counts)
    codes = np.zeros((view.groups, view.rows // length, view.columns), np.uint8)
    factors = moments.factors(num_threads)

    def feed(continues: bool) -> None:
        feed_back_codes(
            matrices, moments.hessian, moments.dampening, tables, numbers.rows, numbers.columns, bits, codes,
            moments.sweeps, continues, num_threads, factors,
        )  # fmt: skip

    feed(False)
    lut = tensor.lut
    if length == 1 and tensor.scale is None and numbers.columns is None and bits is None:
        for _ in range(REFITS.get(tensor.nbits, 0) if moments.rows_of_refit else 0):
            fitted = _refitted(matrices, tables[:, :, 0], numbers.rows, codes, moments, num_threads)
            lut, places = _rounded_table(fitted, weight.dtype)
            codes = np.take_along_axis(places[numbers.rows], codes.astype(np.intp), 2).astype(np.uint8)
            tables = lut.astype(np.float64)[:, :, None]
            feed(True)
        lut = np.reshape(lut, tensor.lut.shape)  # type: ignore[arg-type]  # of floats it is an array
    if length > 1:
        assert tensor.vector_axis is not None
        shape = list(view.shape)
        shape[tensor.vector_axis] //= length
        view = replace(view, shape=tuple(shape))
    indices = view.restore(codes).reshape(-1)
    if tensor.support is not None:
        indices = indices[ones_of(tensor.support.mask, weight.size)]
    packed = np.empty(packed_size(indices.size, tensor.nbits), np.uint8)
    pack_bits(np.ascontiguousarray(indices), tensor.nbits, False, False, packed, num_threads)
    return replace(tensor, indices=packed, lut=lut)


def quantize_codes(
    weight: Array, tensor: QuantizedTensor, code_range: tuple[int, int], moments: Moments, num_threads: int
) -> QuantizedTensor:
    """Find the codes of a quantized weight again, with error feedback; parameters as for `palettize_codes`."""
    view, storage = moments.view, QUANTIZED_DTYPES[tensor.quantized_dtype][1]
    matrices, bits = matrices_of(weight, view, tensor)
    numbers = TableNumbers.of(view, tensor.scale.shape)
    scales = contiguous(tensor.scale.reshape(-1), np.float64)
    zero_points = (
        np.zeros(scales.size) if tensor.zero_point is None else contiguous(tensor.zero_point.reshape(-1), np.float64)
    )
    codes = np.zeros(matrices.shape, np.uint8)
    feed_back_codes(
        matrices, moments.hessian, moments.dampening, (scales, zero_points, *code_range), numbers.rows, numbers.columns,
        bits, codes, moments.sweeps, False, num_threads, moments.factors(num_threads),
    )  # fmt: skip
    data = view.restore(codes).reshape(-1)
    if tensor.support is not None:
        data = data[ones_of(tensor.support.mask, weight.size)]
    return replace(tensor, data=pack_codes(np.ascontiguousarray(data).view(storage), tensor.quantized_dtype))


def ranks(weight: Array, moments: Moments, num_threads: int) -> NDArray[np.float32]:
    """Numbers whose squares are what the outputs lose where a weight becomes zero, but for a factor."""
    view = moments.view
    shape, kept = (view.groups, view.rows, view.columns), moments.factors(num_threads)
    pivots = column_pivots(shape, moments.hessian, moments.dampening, num_threads, kept)
    largest = pivots.max()
    factors = np.sqrt(pivots / largest if largest > 0 else np.ones_like(pivots))[:, None, :]
    losses = view.matrices(weight).astype(np.float64) * factors
    scaled: NDArray[np.float32] = view.restore(losses.astype(np.float32))
    return scaled


def pruned_values(
    weight: Array, mask: NDArray[np.uint8], moments: Moments, num_threads: int, *, moves_mask: bool
) -> Array:
    """A weight that is zero where the packed mask is, and elsewhere makes up for it.

    With `moves_mask` there are as many zeros, but they are chosen as columns are reached, by what weights are by then.
    """
    view = moments.view
    matrices = np.ascontiguousarray(view.matrices(weight))
    kept = np.ascontiguousarray(view.matrices(ones_of(mask, weight.size).reshape(weight.shape))).view(np.uint8)
    values = np.zeros_like(matrices)
    feed_back_values(
        matrices, moments.hessian, moments.dampening, kept, moves_mask, values, moments.sweeps, num_threads,
        moments.factors(num_threads),
    )  # fmt: skip
    return view.restore(values)


def matrices_of(
    weight: Array, view: MatrixView, tensor: PalettizedTensor | QuantizedTensor
) -> tuple[Array, NDArray[np.uint8] | None]:
    """The matrices of a weight, and 1 for each value that a sparse tensor has."""
    matrices = np.ascontiguousarray(view.matrices(weight))
    if tensor.support is None:
        return matrices, None
    ones = ones_of(tensor.support.mask, weight.size).reshape(weight.shape)
    return matrices, np.ascontiguousarray(view.matrices(ones)).view(np.uint8)


def _vector_view(view: MatrixView, tensor: PalettizedTensor) -> MatrixView:
    """The view whose neighbouring rows are neighbours along the axis of vectors."""
    axis, length = tensor.vector_axis, tensor.cluster_dim
    assert axis is not None
    if axis not in view.row_axes:
        raise ValueError(
            f"palettize: hessian with cluster_dim {length} needs vectors along the outputs, not along axis {axis}, "
            f"whose entries are inputs"
        )
    turned = replace(view, row_axes=(*(each for each in view.row_axes if each != axis), axis))
    if view.groups > 1 and view.group_axis == axis and view.shape[axis] // view.groups % length:
        raise ValueError(
            f"palettize: hessian with cluster_dim {length} needs vectors within the {view.groups} groups of axis "
            f"{axis} of length {view.shape[axis]}"
        )
    return turned


def _scaled(tables: Array, tensor: PalettizedTensor) -> Array:
    """Tables times the scale of each channel, as they decode; one for each scale."""
    assert tensor.scale is not None
    scale = tensor.scale
    groups = tensor.group_counts
    each = [np.arange(count) * parts // count for count, parts in zip(scale.shape, groups, strict=True)]
    numbers = np.arange(prod(groups)).reshape(groups)[np.ix_(*each)].reshape(-1)
    products = tables[numbers] * scale.astype(np.float64).reshape(-1, 1, 1)
    return rounded_to(scale.dtype, products).astype(np.float64)


def _refitted(
    matrices: Array,
    tables: Array,
    rows: NDArray[np.int32],
    codes: NDArray[np.uint8],
    moments: Moments,
    num_threads: int,
) -> Array:
    """The best tables for given codes; entries that no weight has stay."""
    view, entries = moments.view, tables.shape[1]
    chosen = _some_rows(rows, len(tables), moments.rows_of_refit)
    products, targets = np.zeros((len(tables), entries, entries)), np.zeros((len(tables), entries))
    for group in range(view.groups):
        of_group = chosen[group]
        if not of_group.any():
            continue
        hessian = moments.hessian[group % len(moments.hessian)][None]
        some = (np.ascontiguousarray(each[group][of_group][None]) for each in (matrices, rows, codes))
        weight, numbers, of_weight = some
        left, right = normal_equations(
            weight, hessian, moments.dampening, len(tables), entries, numbers, of_weight, num_threads
        )
        products += left
        targets += right
    return np.array([_solved(*each) for each in zip(products, targets, tables, strict=True)])


def _some_rows(rows: NDArray[np.int32], tables: int, limit: int) -> NDArray[np.bool_]:
    """Rows of each table, evenly spaced, and no more of them than a refit takes."""
    flat = rows.reshape(-1)
    counts = np.bincount(flat, minlength=tables)
    order = np.argsort(flat, kind="stable")
    place = np.empty(flat.size, np.int64)
    place[order] = np.arange(flat.size) - np.repeat(np.cumsum(counts) - counts, counts)
    most = np.minimum(counts, limit)[flat]
    # The p-th of n rows is taken where a multiple of n / most falls on it.
    number = counts[flat]
    return ((place * most) % number < most).reshape(rows.shape)


def _solved(products: Array, targets: Array, table: Array) -> Array:
    """The solution of symmetric equations by elimination, in an order that no library decides."""
    used = np.flatnonzero(products.diagonal() > 0)
    left, right = products[np.ix_(used, used)], targets[used].copy()
    for j in range(used.size):
        if not left[j, j] > 2.0**-40 * products[used[j], used[j]]:
            return table
        for i in range(j + 1, used.size):
            factor = left[i, j] / left[j, j]
            left[i, j:] -= factor * left[j, j:]
            right[i] -= factor * right[j]
    solved = table.copy()
    for j in reversed(range(used.size)):
        for i in range(j + 1, used.size):
            right[j] -= left[j, i] * right[i]
        right[j] /= left[j, j]
    solved[used] = right
    return solved


def _rounded_table(tables: Array, dtype: np.dtype[Any]) -> tuple[Array, NDArray[np.intp]]:
    """Tables of a weight's dtype, ascending, and the new place of each entry."""
    largest = float(np.finfo(dtype).max) if dtype.kind == "f" else inf
    rounded = rounded_to(dtype, np.clip(tables, -largest, largest))
    order = np.argsort(rounded.astype(np.float64), axis=1, kind="stable")
    places = np.argsort(order, axis=1)
    return np.take_along_axis(rounded, order, 1), places


def uses_hessian(spec: Spec, weight: Any) -> bool:
    """Whether a step uses second moments for this weight: an array, or a sparse tensor of plain values."""
    if spec.hessian_needs is not None:
        return False
    if isinstance(weight, SparseTensor):
        return isinstance(spec, Palettize | Quantize) and isinstance(weight.values, np.ndarray)
    return not isinstance(weight, CompressedTensor)
