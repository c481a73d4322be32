"""Error feedback for codes that are floats: their values times a scale are a table, whose entries are rounded to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._core import feed_back_codes, kept_factors
from ..tensors import QUANTIZED_DTYPES, QuantizedTensor, ones_of, pack_codes, values_of_codes
from .error_feedback import Moments, TableNumbers, matrices_of

Array: TypeAlias = NDArray[Any]

_MOST_ENTRIES = 1 << 22  # of tables that are in memory together, 8 bytes each
_MOST_FACTORS = 1 << 28  # numbers that are kept for a weight whose rows are taken in parts


def quantize_float_codes(weight: Array, tensor: QuantizedTensor, moments: Moments, num_threads: int) -> QuantizedTensor:
    """Find the codes of a weight quantized to floats again, with error feedback; its scales stay.

    Parameters
    ----------
    weight : numpy.ndarray
        The weight that was quantized, contiguous and finite; zero where a sparse tensor has no value.
    tensor : QuantizedTensor
        What it was quantized to, or the values of a sparse tensor.
    moments : Moments
        Of the inputs.
    num_threads : int
        Threads to use.
    """
    view = moments.view
    matrices, ones = matrices_of(weight, view, tensor)
    values, code_of = _ascending(tensor.quantized_dtype)
    codes = np.zeros(matrices.shape, np.uint8)
    parts = list(_parts(TableNumbers.of(view, tensor.scale.shape), tensor.scale.reshape(-1), values.size))
    factors = moments.factors(num_threads)
    if factors is None and len(parts) > 1:
        factors = kept_factors(view.columns, moments.hessian, moments.dampening, _MOST_FACTORS, num_threads)
    for rows, numbers, scales in parts:
        with np.errstate(over="ignore"):
            products = values * scales.astype(np.float32)[:, None]
        tables = products.astype(tensor.dtype).astype(np.float64)[:, :, None]
        of_rows = np.zeros((view.groups, rows.stop - rows.start, view.columns), np.uint8)
        feed_back_codes(
            np.ascontiguousarray(matrices[:, rows]), moments.hessian, moments.dampening, tables, numbers.rows,
            numbers.columns, None if ones is None else np.ascontiguousarray(ones[:, rows]), of_rows, moments.sweeps,
            False, num_threads, factors,
        )  # fmt: skip
        codes[:, rows] = code_of[of_rows]
    data = view.restore(codes).reshape(-1)
    if tensor.support is not None:
        data = data[ones_of(tensor.support.mask, weight.size)]
    return replace(tensor, data=pack_codes(np.ascontiguousarray(data), tensor.quantized_dtype))


def _ascending(quantized_dtype: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The finite values of a type, one zero among them, and the code of each; the largest until they are 2^bits."""
    nbits, _ = QUANTIZED_DTYPES[quantized_dtype]
    every = values_of_codes(quantized_dtype)
    finite = np.flatnonzero(np.isfinite(every) & ~((every == 0) & np.signbit(every)))
    order = finite[np.argsort(every[finite], kind="stable")].astype(np.uint8)
    order = np.concatenate([order, np.full(2**nbits - order.size, order[-1])])
    return every[order], order


def _parts(numbers: TableNumbers, scales: Array, entries: int) -> Iterator[tuple[slice, TableNumbers, Array]]:
    """Ranges of rows whose tables fit into memory, the numbers of these tables, and their scales."""
    groups, count = numbers.rows.shape
    along_columns, columns = np.zeros(1, np.int32), None
    if numbers.columns is not None:
        along_columns, inverse = np.unique(numbers.columns, return_inverse=True)
        columns = inverse.reshape(numbers.columns.shape).astype(np.int32)
    of_row = entries * along_columns.size
    step = max(1, _MOST_ENTRIES // (of_row * groups))
    if np.unique(numbers.rows).size * of_row <= _MOST_ENTRIES:
        step = count
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        along_rows, inverse = np.unique(numbers.rows[:, rows], return_inverse=True)
        of_part = inverse.reshape(groups, -1).astype(np.int32) * np.int32(along_columns.size)
        chosen = (along_rows[:, None] + along_columns[None, :]).reshape(-1)
        yield rows, TableNumbers(np.ascontiguousarray(of_part), columns), scales[chosen]
