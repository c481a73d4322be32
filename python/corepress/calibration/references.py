"""Weights as candidates store them, to judge the error of each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compression
from ..compression.error_feedback import REFITS, ROWS_OF_REFIT, Moments
from ..compression.palettes import palettize_measured
from ..compression.weight_data import WeightData
from ..config.candidates import Steps, candidate_key
from ..engine.resolution import resolve_all
from ..engine.weights import Weight
from ..errors import Skip, UnsuitableWeightError
from ..kernels import kmeans1d_sweep
from ..specs import Palettize, Quantize
from ..tensors import CompressedTensor
from .rows import Part

# That palettes are fitted to. Those of 2 bits depend on single rows: they have the ones that the whole weight has.
_ROWS_OF_REFIT = {1: ROWS_OF_REFIT, 2: ROWS_OF_REFIT, 3: 64}
_MOST_OF_ROW = 512  # values by which the error of a row is estimated, where values cannot be counted
_MOST_VALUES = 1 << 20  # from which a palette is found, where values cannot be counted


@dataclass(frozen=True, eq=False)
class Reference:
    """A weight, or some rows of it, as a candidate stores it.

    Attributes
    ----------
    stored : numpy.ndarray
        What it is compared with.
    tensor : CompressedTensor
        The candidate.
    part : Part or None
        The rows; None for the whole weight.
    """

    stored: NDArray[Any]
    tensor: CompressedTensor
    part: Part | None = None

    def error(self, num_threads: int) -> NDArray[np.float32]:
        """What the candidate changes."""
        dense: NDArray[np.float32] = self.tensor.dense(num_threads=num_threads).astype(np.float32)
        dense -= self.stored
        return dense


def references_of(
    weight: Weight,
    stored: NDArray[Any],
    candidates: Sequence[Steps],
    data: WeightData,
    num_threads: int,
    squares: NDArray[np.float64] | None = None,
) -> dict[str, Reference]:
    """A weight as each candidate stores it, by the candidate's key; candidates that do not fit it are left out.

    Parameters
    ----------
    weight, stored
        The weight and its values.
    candidates : sequence of tuple of Spec
        The candidates.
    data : WeightData
        What is known of it; candidates that have no use for this are made without.
    num_threads : int
        Threads to use.
    squares : numpy.ndarray of float64, optional
        The squares of the gradients of each row: make only some rows, for candidates whose rows do not depend on each
        other. A palette of all rows is found from all of them.
    """
    resolved = [(candidate_key(steps), _resolved(weight, steps)) for steps in candidates]
    chosen = {key: steps for key, steps in resolved if steps is not None}
    data = data.prepared(stored.shape)
    found: dict[str, Reference] = {}
    tables: dict[int, NDArray[np.float64]] = {}
    some, part = stored, None
    if squares is not None and data.view is not None:
        tables = _tables(stored, [width for width in map(_width, chosen.values()) if width], num_threads)
        axis = data.view.row_axes[0]
        part = Part.of(data.view, squares * _row_errors(stored, axis, list(tables.values())))
        some = part.taken(stored)
    for key, steps in chosen.items():
        by_part = part is not None and (_width(steps) in tables or _has_rows(steps, part.axis, stored.ndim))
        with suppress(Skip, UnsuitableWeightError):
            if not by_part:
                found[key] = Reference(
                    stored, compression.apply_steps(stored, steps, data=data, num_threads=num_threads)
                )
            else:
                tensor = _made(some, steps, data, num_threads, tables.get(_width(steps)), stored)
                found[key] = Reference(some, tensor, part)
    return found


def _resolved(weight: Weight, steps: Steps) -> Steps | None:
    try:
        return resolve_all(steps, weight)
    except (Skip, UnsuitableWeightError):
        return None


def _made(
    some: NDArray[Any],
    steps: Steps,
    data: WeightData,
    num_threads: int,
    table: NDArray[np.float64] | None,
    stored: NDArray[Any],
) -> CompressedTensor:
    """Some rows, with the palette of all of them; those of few bits are fitted to rows that are evenly spread."""
    tensor: CompressedTensor
    if table is None:
        tensor = compression.apply_steps(some, steps, data=data, num_threads=num_threads)
        return tensor
    (spec,) = steps
    assert isinstance(spec, Palettize)
    if isinstance(data.hessian, Moments) and spec.nbits in REFITS:
        axis = data.hessian.view.row_axes[0]
        length, most = stored.shape[axis], min(_ROWS_OF_REFIT[spec.nbits], stored.shape[axis])
        even = stored.take(np.flatnonzero(np.arange(length) * most % length < most), axis)
        ((fitted, _),) = palettize_measured([even], spec, num_threads, table, [data], in_list=False)
        table = np.asarray(fitted.table, np.float64).reshape(-1)
    ((tensor, _),) = palettize_measured([some], spec, num_threads, table, [data.with_rows_of_refit(0)], in_list=False)
    return tensor


def _has_rows(steps: Steps, axis: int, rank: int) -> bool:
    """Whether each row has its own scales."""
    (spec,) = steps if len(steps) == 1 else (None,)
    if not isinstance(spec, Quantize) or spec.granularity != "per_channel":
        return False
    return spec.channel_axis is not None and spec.channel_axis % rank == axis


def _width(steps: Steps) -> int:
    """Bits of the palette, for steps that find the optimal one for all values of a weight; 0 for others."""
    spec = steps[0]
    if len(steps) != 1 or not isinstance(spec, Palettize) or spec.nbits is None:
        return 0
    return spec.nbits if spec == replace(Palettize(nbits=spec.nbits), channel_axis=spec.channel_axis) else 0


def _row_errors(stored: NDArray[Any], axis: int, tables: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """About how large the errors of each row are with some palettes, which count alike; without any, its power."""
    rows = [np.ascontiguousarray(row).reshape(-1) for row in np.moveaxis(stored, axis, 0)]
    tables = [table for table in tables if len(table) > 1]
    if not tables:
        return np.array([float(np.square(row, dtype=np.float64).sum()) for row in rows])

    def errors(values: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(values.shape)
        for table in tables:
            nearest = table[np.searchsorted((table[1:] + table[:-1]) / 2, values)]
            total += (values - nearest) ** 2 / np.square(np.diff(table)).mean()
        return total

    if stored.dtype == np.float16:
        every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        of_every = errors(np.where(np.isfinite(every), every, 0).astype(np.float64)).astype(np.float32)
        return np.array([float(of_every[row.view(np.uint16)].sum(dtype=np.float64)) for row in rows])
    step = -(-rows[0].size // _MOST_OF_ROW)
    return np.array([float(errors(row[::step].astype(np.float64)).sum()) for row in rows])


def _tables(stored: NDArray[Any], widths: Sequence[int], num_threads: int) -> dict[int, NDArray[np.float64]]:
    """The palette of each width for all values of a weight, found together; none if it is not finite."""
    if not widths:
        return {}
    flat = stored.reshape(-1)
    counts = None
    if flat.dtype == np.float16:
        numbers = np.zeros(1 << 16, np.int64)
        for start in range(0, flat.size, _MOST_VALUES):
            numbers += np.bincount(flat[start : start + _MOST_VALUES].view(np.uint16), minlength=numbers.size)
        present = np.flatnonzero(numbers)
        values, counts = present.astype(np.uint16).view(np.float16), numbers[present]
    else:
        values = flat[:: -(-flat.size // _MOST_VALUES)]
    if not np.isfinite(values).all():
        return {}
    sizes = {nbits: 2**nbits for nbits in widths}
    found = kmeans1d_sweep(values, sorted(set(sizes.values())), counts, num_threads=num_threads)
    return {nbits: found[size].centroids for nbits, size in sizes.items()}
