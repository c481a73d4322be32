"""Error feedback in NumPy, one column after another: what `corepress._core.feed_back` computes, bit for bit.

With second moments H = E[x x^T] of a layer's inputs, the error of its outputs is tr(E H E^T), E the errors of the
weights. H = M D M^T with M upper triangular, 1 on its diagonal, makes this a sum over the columns in order,

    sum_j D_j ||(E M)_j||^2,   (E M)_j = E_j + sum_{k<j} E_k M_kj,

so the best a column can do, given the errors of the columns before it, is to round w_j + sum_{k<j} (w_k - q_k) M_kj
instead of w_j. This is GPTQ (Frantar et al., arXiv:2210.17323), which multiplies by the Cholesky factor of the inverse
of H, without an inverse (as LDLQ: Chee et al., arXiv:2307.13304). D_j is 1 / [H^-1]_jj of the columns from j on, by
which SparseGPT (Frantar and Alistarh, arXiv:2301.00774) ranks weights.

Sweeps then round each column once more, with the errors of all others as they are by then, which never raises the error
(coordinate descent; QuantEase: Behdin et al., arXiv:2309.01885).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .rounding import round_to

Array = NDArray[Any]

TILE = 32  # rows and columns within which zeros may move
_LEAST_PIVOT = 2.0**-40  # of the largest number of the diagonal: below it nothing is left but rounding


class Rounding(Protocol):
    """How the weights of one column become codes."""

    def encode(self, column: Array, tables: Array) -> tuple[Array, Array]:
        """The codes of a column and what they decode to; `tables` numbers the table or the scale of each row."""


@dataclass(frozen=True)
class NearestEntry:
    """The nearest entry of a palette, the lower of two; for vectors, of consecutive rows.

    Attributes
    ----------
    tables : numpy.ndarray of float64, shape (tables, entries, cluster_dim)
        Ascending.
    """

    tables: Array

    def encode(self, column: Array, tables: Array) -> tuple[Array, Array]:
        length = self.tables.shape[2]
        if length == 1:
            entries = self.tables[tables, :, 0]
            middles = (entries[:, :-1] + entries[:, 1:]) * 0.5
            codes = (column[:, None] > middles).sum(axis=1)
            return codes, entries[np.arange(codes.size), codes]
        vectors, entries = column.reshape(-1, 1, length), self.tables[tables[::length]]
        distances = np.zeros(entries.shape[:2])
        for component in range(length):
            differences = vectors[:, :, component] - entries[:, :, component]
            distances += differences * differences
        codes = distances.argmin(axis=1)
        return codes, entries[np.arange(codes.size), codes].reshape(-1)


@dataclass(frozen=True)
class NearestInteger:
    """The nearest code of an affine grid, the even one of two.

    Attributes
    ----------
    scales, zero_points : numpy.ndarray of float64, one for each table
    lowest, highest : int
        The range of codes.
    dtype : numpy.dtype
        Of the weight, to which decoded values are rounded.
    """

    scales: Array
    zero_points: Array
    lowest: int
    highest: int
    dtype: np.dtype[Any]

    def encode(self, column: Array, tables: Array) -> tuple[Array, Array]:
        scales, zero_points = self.scales[tables], self.zero_points[tables]
        steps = np.rint(np.clip(column / scales, self.lowest - zero_points, self.highest - zero_points))
        return steps + zero_points, round_to(steps * scales, self.dtype).astype(np.float64)


@dataclass(frozen=True)
class Unchanged:
    """Values of the weight's dtype: weights that pruning keeps."""

    dtype: np.dtype[Any]

    def encode(self, column: Array, tables: Array) -> tuple[Array, Array]:
        largest = float(np.finfo(self.dtype).max)
        values = round_to(np.clip(column, -largest, largest), self.dtype).astype(np.float64)
        return values, values


def factors(hessian: Array, dampening: float) -> tuple[Array, Array, Array]:
    """Factorize the second moments of some columns, by falling diagonal.

    Parameters
    ----------
    hessian : numpy.ndarray, shape (columns, columns)
        E[x x^T].
    dampening : float
        How many times the mean of the diagonal is added to the diagonal.

    Returns
    -------
    order : numpy.ndarray of int
        The columns in the order in which they are to be rounded.
    multipliers : numpy.ndarray of float64, shape (columns, columns)
        M: row k has what the error of the k-th column of the order, original less rounded, adds to those after it.
    pivots : numpy.ndarray of float64
        D.
    """
    moments = hessian.astype(np.float64)
    moments = (moments + moments.T) * 0.5
    diagonal = moments.diagonal().copy()
    order = np.argsort(-diagonal, kind="stable")
    damp = dampening * (np.cumsum(diagonal)[-1] / diagonal.size)
    # The last column is eliminated first, from all others.
    remaining = moments[np.ix_(order[::-1], order[::-1])]
    remaining[np.diag_indices_from(remaining)] += damp
    least = _LEAST_PIVOT * remaining.diagonal().max()
    rows = np.zeros_like(remaining)
    pivots = np.empty(diagonal.size)
    for j in range(diagonal.size):
        pivots[j] = max(remaining[j, j], least)
        if remaining[j, j] > least:
            rows[j, j + 1 :] = remaining[j, j + 1 :] / remaining[j, j]
        remaining[j + 1 :, j + 1 :] -= rows[j, j + 1 :, None] * remaining[j, None, j + 1 :]
    return order, rows[::-1, ::-1].T, pivots[::-1]


def relative_moments(hessian: Array, order: Array, dampening: float) -> Array:
    """H_kj / H_jj of the dampened moments in an order of the columns; 0 on the diagonal and for columns never seen."""
    moments = hessian.astype(np.float64)
    moments = ((moments + moments.T) * 0.5)[np.ix_(order, order)]
    own = moments.diagonal() + dampening * (np.cumsum(hessian.diagonal(), dtype=np.float64)[-1] / order.size)
    relative: Array = np.divide(moments, own, out=np.zeros_like(moments), where=own > 0)
    relative[np.diag_indices_from(relative)] = 0
    return relative


@dataclass
class _Columns:
    """The columns of one block of one group, rounded one after another."""

    original: Array  # (rows, columns) in the order of rounding, as the following
    tables: Array
    mask: Array
    rounding: Rounding
    codes: Array
    errors: Array  # rounded less original

    def round(self, j: int, column: Array) -> Array:
        codes, values = self.rounding.encode(column, self.tables[:, j])
        length = column.size // codes.size
        self.codes[:, j] = np.where(self.mask[::length, j], codes, 0)
        values = np.where(self.mask[:, j], values, 0)
        self.errors[:, j] = values - self.original[:, j]
        return values

    def first_pass(self, multipliers: Array, pivots: Array, *, moves_mask: bool) -> Array:
        """Round each column with the errors of those before it; the error of each row."""
        adjusted, of_rows = self.original.copy(), np.zeros(len(self.original))
        for j in range(pivots.size):
            if moves_mask and j % TILE == 0:
                _move_mask(self.mask[:, j : j + TILE], adjusted[:, j : j + TILE], pivots[j : j + TILE])
            missed = adjusted[:, j] - self.round(j, adjusted[:, j])
            of_rows += pivots[j] * (missed * missed)
            adjusted[:, j + 1 :] -= self.errors[:, j, None] * multipliers[j, None, j + 1 :]
        return of_rows

    def sweep(self, relative: Array) -> None:
        """Round each column with the errors of all others, those after it as they were before."""
        count = len(relative)
        for j in range(count):
            column = self.original[:, j].copy()
            for k in (*range(j + 1, count), *range(j)):
                column -= self.errors[:, k] * relative[k, j]
            self.round(j, column)


def _move_mask(mask: Array, values: Array, pivots: Array) -> None:
    """Keep the number of zeros in each TILE rows, but let them be the weights that cost least; of equals the first."""
    for first in range(0, len(mask), TILE):
        rows = slice(first, first + TILE)
        costs = (values[rows] * values[rows] * pivots).T.ravel()
        zeros = int((~mask[rows]).sum())
        moved = np.ones(costs.size, bool)
        moved[np.argsort(costs, kind="stable")[:zeros]] = False
        mask[rows] = moved.reshape(mask[rows].T.shape).T


def feed_back(
    weight: Array,
    hessian: Array,
    rounding: Rounding,
    *,
    dampening: float = 0.01,
    row_tables: Array | None = None,
    column_tables: Array | None = None,
    mask: Array | None = None,
    moves_mask: bool = False,
    sweeps: int = 0,
) -> tuple[Array, Array, float]:
    """Round matrices so that their products with inputs change little.

    Parameters
    ----------
    weight : numpy.ndarray, shape (groups, rows, columns)
        The matrices.
    hessian : numpy.ndarray, shape (groups or 1, blocks, c, c)
        Second moments of the inputs, block by block of `c` consecutive columns; moments beyond the columns are ignored.
    rounding : Rounding
        What rounds a column.
    dampening : float
        As for `factors`.
    row_tables, column_tables : numpy.ndarray of int, shapes (groups, rows) and (groups, columns)
        The number of a weight's table is the sum of its row's and its column's; None for zeros.
    mask : numpy.ndarray of bool, shape (groups, rows, columns)
        False where weights become zero.
    moves_mask : bool
        Whether the zeros of each `TILE` rows and columns are chosen again by what the weights are by then.
    sweeps : int
        How often every column is rounded once more, with the errors of all others.

    Returns
    -------
    codes : numpy.ndarray, shape (groups, rows // cluster_dim, columns)
        As `rounding` makes them; 0 where the mask is False.
    mask : numpy.ndarray of bool, shape (groups, rows, columns)
        Where weights are not zero.
    error : float
        tr(E H E^T) over all groups and blocks, with the dampened H, before the sweeps.
    """
    groups, rows, columns = weight.shape
    length = rounding.tables.shape[2] if isinstance(rounding, NearestEntry) else 1
    row_tables = np.zeros((groups, rows), int) if row_tables is None else row_tables
    column_tables = np.zeros((groups, columns), int) if column_tables is None else column_tables
    mask = np.ones(weight.shape, bool) if mask is None else mask.copy()
    codes = np.zeros((groups, rows // length, columns))
    errors = []
    for group in range(groups):
        moments = hessian[group % hessian.shape[0]]
        for block, begin in enumerate(range(0, columns, moments.shape[1])):
            count = min(moments.shape[1], columns - begin)
            of_block = moments[block, :count, :count]
            order, multipliers, pivots = factors(of_block, dampening)
            places = begin + order
            part = _Columns(
                weight[group][:, places].astype(np.float64),
                row_tables[group][:, None] + column_tables[group][places],
                mask[group][:, places],
                rounding,
                np.zeros((rows // length, count)),
                np.zeros((rows, count)),
            )
            errors.append(part.first_pass(multipliers, pivots, moves_mask=moves_mask))
            for _ in range(sweeps):
                part.sweep(relative_moments(of_block, order, dampening))
            codes[group][:, places], mask[group][:, places] = part.codes, part.mask
    return codes, mask, float(np.cumsum(np.concatenate(errors))[-1])


def normal_equations(
    weight: Array, hessian: Array, codes: Array, entries: int, row_tables: Array, *, dampening: float = 0.01
) -> tuple[Array, Array]:
    """What the best tables for given codes solve: sum P^T H P and sum P^T H w over the rows of each table.

    P has a row for each column of the matrix and a column for each entry, 1 where the code is that entry.

    Parameters
    ----------
    weight, hessian, row_tables, dampening
        As for `feed_back`.
    codes : numpy.ndarray of int, shape (groups, rows, columns)
        The entry of each weight.
    entries : int
        Of a table.

    Returns
    -------
    products : numpy.ndarray of float64, shape (tables, entries, entries)
    targets : numpy.ndarray of float64, shape (tables, entries)
    """
    tables = int(row_tables.max()) + 1
    products, targets = np.zeros((tables, entries, entries)), np.zeros((tables, entries))
    groups, rows, columns = weight.shape
    for group in range(groups):
        for row in range(rows):
            of_row, of_targets = np.zeros((entries, entries)), np.zeros(entries)
            moments = hessian[group % hessian.shape[0]]
            for block, begin in enumerate(range(0, columns, moments.shape[1])):
                count = min(moments.shape[1], columns - begin)
                dense = moments[block, :count, :count].astype(np.float64)
                dense = (dense + dense.T) * 0.5
                dense[np.diag_indices(count)] += dampening * (np.cumsum(dense.diagonal())[-1] / count)
                own = codes[group, row, begin : begin + count]
                sums, negative = np.zeros((entries, count)), np.zeros(count)
                for i in range(count):
                    sums[own[i]] += dense[i]
                    negative -= dense[i] * np.float64(weight[group, row, begin + i])
                for j in range(count):
                    of_row[:, own[j]] += sums[:, j]
                    of_targets[own[j]] -= negative[j]
            products[row_tables[group, row]] += of_row
            targets[row_tables[group, row]] += of_targets
    return products, targets
