"""Palettes by any spec: checked weights, and a function for each way to find the palettes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import gcd, inf, prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._core import count_nonfinite, distinct_values, kmeans1d
from .._core import palettize as palettize_native
from ..arrays import (
    as_finite_weight,
    as_threads,
    as_weight,
    checked_axis,
    for_each,
    group_layout,
    not_finite,
)
from ..errors import NonFiniteError, TooManyValuesError
from ..specs import Palettize
from ..tensors import CompressedTensor, PalettizedTensor, SparseTensor
from ..tensors import base as tensor_base
from . import joint
from .custom_palettization import palettize_by
from .divisions import group_counts
from .error_feedback import Moments, palettize_codes
from .piecewise import joined
from .quotients import Quotients, normalize
from .tables import MOST_BITS, MOST_ENTRIES, rounded_tables, width_for
from .vector_palettization import palettize_vectors
from .weight_data import NO_DATA, WeightData

if TYPE_CHECKING:  # only the stub has these
    from .._core import Layout, Noise

Measured: TypeAlias = "tuple[Any, Noise | None]"


@dataclass(frozen=True)
class _Call:
    """What holds for all weights of a call.

    Attributes
    ----------
    spec : Palettize
        What to do.
    num_threads : int
        Threads to use.
    table : numpy.ndarray of float64 or None
        A given palette, ascending.
    in_list : bool
        Whether errors name the position of the weight in the list.
    """

    spec: Palettize
    num_threads: int
    table: NDArray[Any] | None = None
    in_list: bool = False

    def each(self, function: Callable[..., Any], *columns: Any) -> list[Any]:
        """The results of a function for each weight."""
        return for_each("palettize", self.in_list, function, *columns)


@dataclass(frozen=True)
class _Job:
    """One weight, checked."""

    array: NDArray[Any]
    importance: NDArray[np.float32] | None
    groups: tuple[int, ...]  # along each axis
    infinities: bool
    moments: Moments | None = None

    @property
    def layout(self) -> Layout:
        return group_layout(self.array.shape, self.groups)


def palettize_measured(
    weights: list[Any],
    spec: Palettize,
    num_threads: int | None,
    table: NDArray[Any] | None = None,
    data: list[WeightData] | None = None,
    *,
    in_list: bool = True,
) -> list[Measured]:
    """Palettize each weight as `spec` says, or with a given ascending palette of float64.

    Returns
    -------
    list of (CompressedTensor, Noise or None)
        The second is the squared error, if the kernels computed it.
    """
    call = _Call(spec, as_threads("palettize", num_threads), table, in_list)
    data = data or [NO_DATA] * len(weights)
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        for of_weight in data:
            of_weight.require_plain("palettize")
        return call.each(lambda weight, of_weight: _palettize_mixed(weight, of_weight, call), weights, data)
    jobs = call.each(lambda weight, of_weight: _checked(weight, of_weight, call), weights, data)
    return call.each(lambda job, result: _fed_back(job, result, call), jobs, _way_of(call)(jobs, call))


def _fed_back(job: _Job, result: Measured, call: _Call) -> Measured:
    """The result with the codes that second moments ask for, if there are some."""
    if job.moments is None:
        return result
    return palettize_codes(job.array, result[0], job.moments, call.num_threads), None


def _palettize_mixed(weight: Any, data: WeightData, call: _Call) -> Measured:
    """Palettize a weight of any kind."""
    if not isinstance(weight, CompressedTensor):
        return palettize_measured([weight], call.spec, call.num_threads, call.table, [data], in_list=False)[0]
    moments = data.moments(call.spec, weight)
    tensor = _palettize_tensor(weight, call)
    if moments is None:
        return tensor, None
    assert isinstance(tensor, SparseTensor)
    assert isinstance(tensor.values, PalettizedTensor)
    dense = weight.dense(num_threads=call.num_threads)
    return replace(tensor, values=palettize_codes(dense, tensor.values, moments, call.num_threads)), None


def _way_of(call: _Call) -> Callable[[list[_Job], _Call], list[Measured]]:
    """The function that finds the palettes of a call."""
    if call.spec.enable_per_channel_scale:
        return _with_scales
    if call.spec.cluster_dim > 1:
        return _of_vectors
    if call.table is not None:
        return _given
    return {"kmeans": _fitted, "uniform": _fitted, "unique": _of_distinct_values, "custom": _by_function}[
        call.spec.mode
    ]


def _fitted(jobs: list[_Job], call: _Call) -> list[Measured]:
    """Palettes that the kernels find."""
    return _encode(jobs, [None] * len(jobs), call)


def _given(jobs: list[_Job], call: _Call) -> list[Measured]:
    table = call.table
    assert table is not None

    def luts_for(job: _Job) -> NDArray[Any]:
        return rounded_tables(job.array.dtype, [table] * prod(job.groups), _bits(call.spec))

    return _encode(jobs, call.each(luts_for, jobs), call)


def _of_vectors(jobs: list[_Job], call: _Call) -> list[Measured]:
    arrays, importances = [job.array for job in jobs], [job.importance for job in jobs]
    tensors = palettize_vectors(arrays, call.spec, importances, call.num_threads, call.in_list)
    return [(tensor, None) for tensor in tensors]


def _by_function(jobs: list[_Job], call: _Call) -> list[Measured]:
    lut_function = call.spec.lut_function
    assert lut_function is not None
    return call.each(lambda job: (palettize_by(lut_function, job.array, job.groups), None), jobs)


def _of_distinct_values(jobs: list[_Job], call: _Call) -> list[Measured]:
    most = MOST_ENTRIES if call.spec.nbits is None else 2**call.spec.nbits

    def palettized(job: _Job) -> Measured:
        distinct = distinct_values(job.array, job.layout, most, call.num_threads)
        values = [group for group in distinct if group is not None]
        if len(values) < len(distinct):
            rule = f"mode 'unique' needs at most {most} distinct values per table"
            raise TooManyValuesError(
                f"palettize: {rule}, but {len(distinct) - len(values)} have more (shape {job.array.shape})"
            )
        nbits = width_for(max(group.size for group in values), call.spec.nbits)
        luts = rounded_tables(job.array.dtype, values, nbits)
        return _encode([job], [luts], replace(call, spec=Palettize(nbits=nbits), in_list=False))[0]

    return call.each(palettized, jobs)


_WAYS = {"kmeans": _fitted, "uniform": _fitted, "unique": _of_distinct_values, "custom": _by_function}


def _bits(spec: Palettize) -> int:
    assert spec.nbits is not None
    return spec.nbits


def _encode(jobs: list[_Job], luts: list[NDArray[Any] | None], call: _Call) -> list[Measured]:
    """Palettize arrays with one index per element, by palettes that are given or None for those to be found."""
    nbits = _bits(call.spec)
    encoded = palettize_native(
        [job.array for job in jobs],
        [job.layout for job in jobs],
        nbits,
        call.spec.mode,
        luts,
        [job.importance for job in jobs],
        any(job.infinities for job in jobs),
        call.num_threads,
    )

    def measured(job: _Job, result: tuple[NDArray[Any], NDArray[np.uint8], Noise | None] | None) -> Measured:
        if result is None:
            raise not_finite("palettize", job.array, call.num_threads)
        lut, indices, noise = result
        return PalettizedTensor(job.array.shape, indices, lut.reshape(*job.groups, 2**nbits, 1), nbits), noise

    return call.each(measured, jobs, encoded)


def kmeans_table(
    array: NDArray[Any], nbits: int, num_threads: int
) -> tuple[NDArray[Any], NDArray[np.uint8], Noise | None]:
    """Return the optimal palette for all weights together, the packed indices, and the noise if it is known.

    Like `palettize`, for any width from 1 to 8 bits: 5 and 7 exist outside ML programs.
    """
    layout = (1, 1, array.size)
    (encoded,) = palettize_native([array], [layout], nbits, "kmeans", [None], [None], False, num_threads)
    if encoded is None:
        raise not_finite("palettize", array, num_threads)
    return encoded


def _palettize_tensor(weight: CompressedTensor, call: _Call) -> CompressedTensor:
    def fit(arrays: list[NDArray[Any]], spec: Palettize) -> list[PalettizedTensor]:
        measured = palettize_measured(arrays, spec, call.num_threads, call.table, in_list=False)
        return [tensor for tensor, _ in measured]

    def fit_counted(values: NDArray[Any], counts: NDArray[Any], spec: Palettize) -> NDArray[Any]:
        return _counted_table(values, counts, spec.nbits or MOST_BITS, call.num_threads)

    def fit_quotients(quotients: Quotients, spec: Palettize) -> PalettizedTensor | None:
        unscaled = replace(call, spec=spec, in_list=False)
        return (
            _palettize_quotients(quotients, unscaled) if _has_table_by_pieces(quotients.scale.dtype, unscaled) else None
        )

    spec = call.spec
    if spec.cluster_dim > 1:
        raise ValueError(f"palettize: cluster_dim {spec.cluster_dim} is for arrays, not for compressed tensors")
    fits = joint.Fits(fit, fit_quotients, fit_counted if call.table is None and spec.mode == "kmeans" else None)
    return joint.palettize(weight, spec, _palette_groups(weight, spec), fits, call.num_threads)


def _with_scales(jobs: list[_Job], call: _Call) -> list[Measured]:
    call.each(lambda job: checked_axis("palettize", "channel_axis", call.spec.channel_axis or 0, job.array.shape), jobs)
    return [(tensor, None) for tensor in _palettize_scaled(jobs, call)]


def _palettize_scaled(jobs: list[_Job], call: _Call) -> list[PalettizedTensor]:
    if len(jobs) == 1 and (few := _groups_at_a_time(jobs[0], call.spec)):
        return [_palettize_scaled_groups(jobs[0], few, call)]
    if len(jobs) == 1 and _is_scaled_by_pieces(jobs[0], call):
        (job,) = jobs
        quotients = Quotients(job.array, (call.spec.channel_axis or 0) % job.array.ndim, call.num_threads)
        tensor = _palettize_quotients(quotients, call)
        lut = tensor.table.reshape(*job.groups, -1, 1)
        return [replace(tensor, shape=job.array.shape, lut=lut, scale=quotients.scale)]
    return _palettize_scaled_together(jobs, call)


def _palettize_scaled_together(jobs: list[_Job], call: _Call) -> list[PalettizedTensor]:
    axis, threads = call.spec.channel_axis or 0, call.num_threads
    pairs = [normalize(job.array, axis % job.array.ndim, threads) for job in jobs]
    unscaled = replace(call.spec, enable_per_channel_scale=False)
    quotients, data = [each for _, each in pairs], [WeightData(job.importance) for job in jobs]
    measured = palettize_measured(quotients, unscaled, threads, call.table, data, in_list=call.in_list)
    return [replace(tensor, scale=scale) for (tensor, _), (scale, _) in zip(measured, pairs, strict=True)]


def _groups_at_a_time(job: _Job, spec: Palettize) -> int:
    """How many groups of a weight to scale at a time, to limit the quotients in memory; 0 for all together."""
    axis = (spec.channel_axis or 0) % job.array.ndim
    groups = job.groups[axis]
    contiguous_groups = groups > 1 and prod(job.array.shape[:axis]) == 1
    # Distinct values decide the bits of all groups, and vectors draw from one sequence of random numbers.
    alone = spec.mode in ("kmeans", "uniform") and spec.cluster_dim == 1 and not job.infinities
    if not (contiguous_groups and alone):
        return 0
    size = job.array.size // groups
    unit = 8 // gcd(8, size)  # the indices of this many groups fill whole bytes
    few = max(1, tensor_base.PIECE // (unit * size)) * unit
    return few if few < groups else 0


def _is_scaled_by_pieces(job: _Job, call: _Call) -> bool:
    """Whether a weight has one table, which can be found without all of its quotients in memory, and is large."""
    plain = (
        job.importance is None and not job.infinities and prod(job.groups) == 1 and job.array.size > tensor_base.PIECE
    )
    return plain and _has_table_by_pieces(job.array.dtype, call)


def _has_table_by_pieces(dtype: np.dtype[Any], call: _Call) -> bool:
    """Whether the table is given, or found from the ends of the values or from how often each of few values is met."""
    if call.spec.cluster_dim > 1:
        return False
    mode = call.spec.mode
    return call.table is not None or mode == "uniform" or (mode == "kmeans" and dtype.itemsize == 2)


def _palettize_quotients(quotients: Quotients, call: _Call) -> PalettizedTensor:
    """Palettize with one table: first find it, then look for the entries; 1-D."""
    nbits, dtype = _bits(call.spec), quotients.scale.dtype
    if call.table is not None:
        luts = rounded_tables(dtype, [call.table], nbits)
    elif call.spec.mode == "uniform":
        ends = np.array([_extremes(piece) for piece in quotients.pieces() if piece.size] or [(0, 0)], dtype)
        outermost = _Job(np.array([ends.min(), ends.max()]), None, (1,), infinities=False)
        luts = _encode([outermost], [None], call)[0][0].table.reshape(1, -1)
    else:
        counts = np.zeros(1 << 16)
        for piece in quotients.pieces():
            counts += np.bincount(piece.view(np.uint16), minlength=counts.size)
        present = np.flatnonzero(counts)
        values = present.astype(np.uint16).view(dtype)
        luts = _counted_table(values, counts[present], nbits, call.num_threads)[None]
    nearest = replace(call, spec=Palettize(nbits=nbits))

    def indices() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for piece in quotients.pieces():
            job = _Job(piece, None, (1,), infinities=False)
            yield _encode([job], [luts], nearest)[0][0].indices, piece.size

    packed = joined(quotients.size, nbits, indices())
    return PalettizedTensor((quotients.size,), packed, luts.reshape(1, -1, 1), nbits)


def _extremes(values: NDArray[Any]) -> tuple[Any, Any]:
    """The smallest and the largest of finite values."""
    if values.itemsize != 2:
        return values.min(), values.max()
    # NumPy compares halves one by one; as integers, whose order is theirs once negative ones are turned round, it does
    # not.
    bits = values.view(np.int16)
    turned = bits ^ ((bits >> 15) & np.int16(0x7FFF))
    ends = np.array([turned.min(), turned.max()])
    lowest, highest = (ends ^ ((ends >> 15) & np.int16(0x7FFF))).view(values.dtype)
    return lowest, highest


def _counted_table(values: NDArray[Any], counts: NDArray[Any], nbits: int, num_threads: int) -> NDArray[Any]:
    """The optimal palette for distinct values with their frequencies."""
    entries = min(2**nbits, values.size)
    exact = values.astype(np.float64)[None]
    ((codes, centers, _),) = kmeans1d(exact, counts[None].astype(np.float64), [entries], num_threads)
    table: NDArray[Any] = rounded_tables(values.dtype, [centers[0, : codes.max() + 1]], nbits)[0]
    return table


def _palettize_scaled_groups(job: _Job, few: int, call: _Call) -> PalettizedTensor:
    """Palettize contiguous groups, `few` at a time."""
    axis = (call.spec.channel_axis or 0) % job.array.ndim
    step = few * (job.array.shape[axis] // job.groups[axis])
    parts: list[PalettizedTensor] = []
    for start in range(0, job.array.shape[axis], step):
        place = (*(slice(None),) * axis, slice(start, start + step))
        importance = None if job.importance is None else job.importance[place]
        part = replace(job, array=job.array[place], importance=importance)
        parts += _palettize_scaled_together([part], replace(call, in_list=False))
    return PalettizedTensor(
        job.array.shape,
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.lut for part in parts], axis),
        parts[0].nbits,
        scale=np.concatenate([part.scale for part in parts if part.scale is not None], axis),
    )


def _checked(weight: Any, data: WeightData, call: _Call) -> _Job:
    spec, infinities = call.spec, False
    # Scalar k-means with equal importance sees every value and detects those that are not finite.
    plain = call.table is None and data.importance is None and not spec.enable_per_channel_scale
    if plain and spec.mode == "kmeans" and spec.cluster_dim == 1 and spec.nonfinite != "table":
        array = as_weight("palettize", weight)
    elif spec.nonfinite == "table":
        array = as_weight("palettize", weight)
        infinities = count_nonfinite(array, call.num_threads) > 0
    else:
        array = as_finite_weight("palettize", weight, call.num_threads)
    importance, groups = data.error_weights("palettize", array.shape), _palette_groups(array, spec)
    job = _Job(array, importance, groups, infinities, data.moments(spec, array))
    if infinities:
        _require_room(job, spec)
    return job


def _require_room(job: _Job, spec: Palettize) -> None:
    """Check that infinities leave an entry for finite values, and that there is no NaN."""
    with np.errstate(invalid="ignore"):
        nans = int(np.isnan(job.array).sum())
        values = job.array.reshape(job.layout)
        kinds = [(values == -inf).any((0, 2)), (values == inf).any((0, 2)), (abs(values) < inf).any((0, 2))]
    if nans:
        raise NonFiniteError(f"palettize: {nans} of {values.size} values are NaN (shape {job.array.shape})")
    if spec.nbits == 1 and np.logical_and.reduce(kinds).any():
        rule = "a table of 2 entries has no entry left for finite values besides -inf and inf"
        raise NonFiniteError(f"palettize: nbits 1, {rule} (shape {job.array.shape})")


def _palette_groups(array: NDArray[Any] | CompressedTensor, spec: Palettize) -> tuple[int, ...]:
    """Number of groups along each axis of an array that has elements."""
    if array.size == 0:
        raise ValueError(f"palettize: weight has no elements (shape {array.shape})")
    return group_counts(spec, array.shape)
