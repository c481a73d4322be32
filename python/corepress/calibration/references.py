"""Weights as candidates store them, to judge the error of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compression
from ..compression.matrix_view import MatrixView
from ..compression.palettes import palettize_measured
from ..compression.weight_data import WeightData
from ..config.candidates import Steps, candidate_key
from ..coreml.program.program import Weight
from ..coreml.resolution import resolve_all
from ..errors import Skip, UnsuitableWeightError
from ..kernels import kmeans1d_sweep
from ..specs import Palettize
from ..tensors import CompressedTensor

JUDGED_ROWS = 128  # of each weight of a large model
_RUN = 32  # rows that follow each other: whole groups, where candidates have some
_MOST_VALUES = 1 << 20  # from which a palette is found, where values cannot be counted


@dataclass(frozen=True, eq=False)
class Part:
    """The entries of one axis of a weight that stand for all of it.

    Attributes
    ----------
    axis : int
        An axis of the rows.
    entries : numpy.ndarray of int64
        Ascending.
    share : float
        Of the axis.
    """

    axis: int
    entries: NDArray[np.int64]
    share: float

    @classmethod
    def of(cls, view: MatrixView | None, rows: int) -> Part | None:
        """About so many rows, in runs that are evenly spread; None if the weight has not many more.

        Weights with groups, and those that are looked up, have their rows in use by turns: None for them too.
        """
        if view is None or view.groups > 1 or view.rows < 2 * rows:
            return None
        axis = view.row_axes[0]
        length = view.shape[axis]
        runs = -(-rows * length // (view.rows * _RUN))
        if 2 * runs * _RUN > length:
            return None
        starts = (2 * np.arange(runs) + 1) * (length // _RUN) // (2 * runs) * _RUN
        entries = (starts[:, None] + np.arange(_RUN)).reshape(-1)
        return cls(axis, entries, entries.size / length)

    def taken(self, array: NDArray[Any]) -> NDArray[Any]:
        """This part of an array of the weight's shape, contiguous."""
        return np.ascontiguousarray(array.take(self.entries, self.axis))


@dataclass(frozen=True, eq=False)
class References:
    """The candidates of a weight, or of a part of it.

    Attributes
    ----------
    stored : numpy.ndarray
        What they are compared with.
    tensors : dict of str to CompressedTensor
        By the candidate's key.
    part : Part or None
        What they are of; None for the whole weight.
    """

    stored: NDArray[Any]
    tensors: Mapping[str, CompressedTensor]
    part: Part | None = None

    def error(self, name: str, num_threads: int) -> NDArray[np.float32]:
        """What a candidate changes, in float32, one after another."""
        dense: NDArray[np.float32] = self.tensors[name].dense(num_threads=num_threads).astype(np.float32).reshape(-1)
        dense -= self.stored.reshape(-1)
        return dense


def references_of(
    weight: Weight,
    stored: NDArray[Any],
    candidates: Sequence[Steps],
    data: WeightData,
    num_threads: int,
    rows: int | None = None,
) -> References:
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
    rows : int, optional
        Make only about as many rows of a weight with second moments and many more. Rows do not depend on each other
        but for the palette, which is found from the whole weight where it is one for all.
    """
    part = None if rows is None or data.hessian is None else Part.of(data.view, rows)
    resolved = [(candidate_key(steps), _resolved(weight, steps)) for steps in candidates]
    chosen = {key: steps for key, steps in resolved if steps is not None}
    data = data.prepared(stored.shape)
    if part is not None:
        tables = _tables(stored, [each for each in map(_width, chosen.values()) if each], num_threads)
        some = part.taken(stored)
        try:
            made = {key: _made(some, steps, data, num_threads, tables.get(_width(steps))) for key, steps in chosen.items()}
        except ValueError:  # such as groups that do not divide the part
            pass
        else:
            return References(some, _without_none(made), part)
    return References(stored, _without_none({key: _made(stored, each, data, num_threads) for key, each in chosen.items()}))


def _without_none(made: Mapping[str, CompressedTensor | None]) -> dict[str, CompressedTensor]:
    return {key: tensor for key, tensor in made.items() if tensor is not None}


def _resolved(weight: Weight, steps: Steps) -> Steps | None:
    try:
        return resolve_all(steps, weight)
    except (Skip, UnsuitableWeightError):
        return None


def _made(
    stored: NDArray[Any], steps: Steps, data: WeightData, num_threads: int, table: NDArray[np.float64] | None = None
) -> CompressedTensor | None:
    try:
        if table is not None:
            (spec,) = steps
            assert isinstance(spec, Palettize)
            found: CompressedTensor = palettize_measured([stored], spec, num_threads, table, [data], in_list=False)[0][0]
            return found
        tensor: CompressedTensor = compression.apply_steps(stored, steps, data=data, num_threads=num_threads)
    except (Skip, UnsuitableWeightError):
        return None
    return tensor


def _width(steps: Steps) -> int:
    """Bits of the palette, for steps that find the optimal one for all values of a weight; 0 for others."""
    spec = steps[0]
    if len(steps) != 1 or not isinstance(spec, Palettize) or spec.nbits is None:
        return 0
    return spec.nbits if spec == replace(Palettize(nbits=spec.nbits), channel_axis=spec.channel_axis) else 0


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
