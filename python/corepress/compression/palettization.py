"""Palettization of arrays: palettes from k-means, even steps, distinct values, or given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd, inf, prod
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..arrays import (
    as_finite_weight,
    as_list,
    as_numbers,
    as_threads,
    as_weight,
    checked_axis,
    group_layout,
    is_list,
    item,
    not_finite,
    rounded_to,
)
from ..errors import NonFiniteError, TooManyValuesError
from ..specs import IMPORTANCE_NEEDS_KMEANS, PALETTE_BITS, Palettize
from ..tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor
from ..tensors import base as tensor_base
from . import joint
from .custom_palettization import palettize_by
from .divisions import group_counts
from .piecewise import joined
from .quotients import Quotients, normalize
from .vector_palettization import palettize_vectors
from .weight_data import NO_DATA, WeightData

MOST_BITS = max(PALETTE_BITS)
MOST_ENTRIES = 2**MOST_BITS


@overload
def palettize(
    weight: list[Any] | tuple[Any, ...],
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> list[PalettizedTensor]: ...
@overload
def palettize(
    weight: SparseTensor,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    num_threads: int | None = None,
) -> SparseTensor: ...
@overload
def palettize(
    weight: QuantizedTensor,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    num_threads: int | None = None,
) -> QuantizedTensor: ...
@overload
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> PalettizedTensor: ...
def palettize(
    weight: Any,
    *,
    nbits: int | None = None,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    cluster_dim: int = 1,
    channel_axis: int | None = None,
    indivisible: str = "skip",
    enable_per_channel_scale: bool = False,
    lut: Any = None,
    importance: Any = None,
    nonfinite: str = "keep",
    num_threads: int | None = None,
) -> CompressedTensor | list[PalettizedTensor]:
    """Replace weights by indices into a palette (lookup table, LUT) of ``2**nbits`` values.

    There is one palette, or one per group of channels. Each weight is assigned to its nearest entry, the lower one if
    two are equally near. With `cluster_dim` above 1 the entries are vectors, and an index encodes that many consecutive
    channels.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64, list of them, SparseTensor, or QuantizedTensor
        Any shape and strides; never written to. float64 is rounded to float32. A list or tuple holds several weights
        and gives a list; small ones are processed in parallel. For a sparse tensor the stored values are palettized,
        those of each group separately; for an 8-bit quantized tensor the codes, with palettes of its integers.
    nbits : {1, 2, 3, 4, 6, 8}, optional
        Bits per index. Required for ``"kmeans"`` and ``"uniform"``; otherwise the fewest that hold the entries.
    mode : {"kmeans", "uniform", "unique"}
        How the palette is found. ``"kmeans"``: the optimum; no other palette of that size has a smaller squared error,
        up to the rounding of its entries to the weight's dtype. ``"uniform"``: evenly spaced values from the smallest
        to the largest weight, the palette that coremltools computes unless that overflows or misses the range.
        ``"unique"``: the distinct values, lossless except for the sign of zeros.
    granularity : {"per_tensor", "per_grouped_channel"}
        One palette for the tensor, or one per `group_size` entries of `channel_axis`.
    group_size : int
        Number of channels that share a palette.
    cluster_dim : int
        Number of consecutive entries of `channel_axis` that one index encodes; must divide the axis and `group_size`.
        Above 1 only for ``"kmeans"`` and ``"unique"``.
    channel_axis : int, optional
        Axis that groups and vectors run along; None for axis 0.
    indivisible : {"skip", "nearest_divisor", "per_tensor", "error"}
        What to do if `group_size` does not divide the axis: ``"nearest_divisor"`` uses the nearest size that does, the
        smaller of two; ``"per_tensor"`` uses one palette; for an array, both others raise IndivisibleError.
    enable_per_channel_scale : bool
        Divide each entry of `channel_axis`, the output channels, by its largest magnitude first (by 1 if all are zero),
        in float32 and rounded to the weight's dtype, and palettize the quotients.
    lut : array_like, optional
        A given palette instead of `mode`: 1 to 256 finite values, 1-D, in any order, rounded to the weight's dtype. All
        groups share it.
    importance : array_like of floats, integers or bool, optional
        How much each weight's squared error counts, in the weight's shape, for mode ``"kmeans"``: not negative, finite;
        only ratios matter. A group whose importance is 0 everywhere is clustered with equal importance. For a list of
        weights, a list with one entry per weight, None for equal importance.
    nonfinite : {"keep", "error", "table"}
        What to do about infinite weights: for an array, the first two raise NonFiniteError. ``"table"`` gives -inf and
        inf their own entries in the palette, the first and the last, in groups that contain them, and finds the others
        from the finite weights. NaN always raises NonFiniteError.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    PalettizedTensor or list of PalettizedTensor
        With indices packed in row-major order, least significant bit first, and entries in ascending order; vectors
        ascend component by component. For a sparse or a quantized tensor, a tensor of the same class with palettized
        values or data.

    Raises
    ------
    TypeError
        If the weight is not a float array in the CPU's memory, or another argument is not an array of numbers.
    ValueError
        For values out of range, a group size that does not divide the axis (`IndivisibleError`), more distinct values
        than entries (`TooManyValuesError`), and NaN or infinite weights (`NonFiniteError`).

    Notes
    -----
    Optimal one-dimensional clustering after Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence
    clustering in 1D", arXiv:1701.07204, on the histogram of the weights. A group of more than 16,384 float32 weights is
    first clustered in about 32,768 buckets; the cuts between its entries are then refined to single values. Vectors are
    clustered as by `corepress.kernels.kmeans`: a good palette, with no known way to find the optimum. A group with no
    more distinct vectors than entries loses nothing.

    Examples
    --------
    >>> weight = np.linspace(-1, 1, 4096, dtype=np.float16).reshape(64, 64)
    >>> palettized = palettize(weight, nbits=4, granularity="per_grouped_channel", group_size=16)
    >>> palettized
    <PalettizedTensor 4 bits float16, 4 groups, shape (64, 64), 4.250 bits/weight>
    >>> palettized.lut.shape, palettized.codes().dtype, palettized.dense().dtype
    ((4, 1, 16, 1), dtype('uint8'), dtype('float16'))
    """
    weights, importances = as_list("palettize", weight, importance)
    in_list = is_list(weight)
    options: dict[str, Any] = {
        "granularity": granularity,
        "group_size": group_size,
        "cluster_dim": cluster_dim,
        "channel_axis": channel_axis,
        "indivisible": indivisible,
        "enable_per_channel_scale": enable_per_channel_scale,
        "nonfinite": nonfinite,
    }
    if mode == "custom":
        raise ValueError("palettize: mode 'custom' is for models, where lut_function makes the tables; give lut")
    table = None
    if lut is not None:
        table = np.sort(given_table("palettize", "lut", lut))
        nbits = width_for(table.size) if nbits is None else nbits
    spec = Palettize(nbits=nbits, mode=mode, **options)
    if table is not None:
        if spec.mode != "kmeans":
            raise ValueError(f"palettize: give lut or mode {mode!r}, not both")
        if spec.cluster_dim != 1:
            raise ValueError(f"palettize: give lut or cluster_dim {cluster_dim}, not both")
        if spec.nonfinite == "table":
            raise ValueError("palettize: nonfinite 'table' makes its own table; leave out lut")
        width_for(table.size, spec.nbits)
        if importance is not None:
            raise ValueError(f"palettize: {IMPORTANCE_NEEDS_KMEANS}")
    WeightData(importance).require_use(spec)
    data = [WeightData(each) for each in importances]
    tensors = palettize_all(weights, spec, num_threads, table, data, in_list=in_list)
    return tensors if in_list else tensors[0]


@dataclass(frozen=True)
class _Job:
    """One weight, checked."""

    array: NDArray[Any]
    importance: NDArray[np.float32] | None
    groups: tuple[int, ...]  # along each axis
    infinities: bool

    @property
    def layout(self) -> _core.Layout:
        return group_layout(self.array.shape, self.groups)


def palettize_all(
    weights: list[Any],
    spec: Palettize,
    num_threads: int | None,
    table: NDArray[Any] | None = None,
    data: list[WeightData] | None = None,
    *,
    in_list: bool = True,
) -> list[Any]:
    """Palettize each weight as `spec` says, or with a given ascending palette of float64."""
    return [tensor for tensor, _ in palettize_measured(weights, spec, num_threads, table, data, in_list=in_list)]


Measured: TypeAlias = "tuple[Any, _core.Noise | None]"


def palettize_measured(
    weights: list[Any],
    spec: Palettize,
    num_threads: int | None,
    table: NDArray[Any] | None = None,
    data: list[WeightData] | None = None,
    *,
    in_list: bool = True,
) -> list[Measured]:
    """Like `palettize_all`, but also return the squared error if the kernels computed it; else None."""
    num_threads = as_threads("palettize", num_threads)
    data = data or [NO_DATA] * len(weights)
    if any(isinstance(weight, CompressedTensor) for weight in weights):
        for of_weight in data:
            of_weight.require_plain("palettize")
        compressed: list[Measured] = []
        for index, weight in enumerate(weights):
            with item("palettize", index if in_list else None):
                compressed.append((_palettize_tensor(weight, spec, num_threads, table), None))
        return compressed
    jobs = []
    for index, (weight, of_weight) in enumerate(zip(weights, data, strict=True)):
        with item("palettize", index if in_list else None):
            jobs.append(_checked(weight, of_weight, spec, num_threads, table))
    if spec.enable_per_channel_scale:
        return [(tensor, None) for tensor in _palettize_scaled(jobs, spec, num_threads, table, in_list)]
    if spec.cluster_dim > 1:
        arrays, checked = [job.array for job in jobs], [job.importance for job in jobs]
        return [(tensor, None) for tensor in palettize_vectors(arrays, spec, checked, num_threads, in_list)]
    if table is None and spec.mode in ("unique", "custom"):
        tensors: list[Measured] = []
        for index, job in enumerate(jobs):
            with item("palettize", index if in_list else None):
                if spec.lut_function is not None:
                    tensors.append((palettize_by(spec.lut_function, job.array, job.groups), None))
                else:
                    tensors.append(_palettize_unique(job, spec.nbits, num_threads))
        return tensors
    assert spec.nbits is not None
    luts: list[NDArray[Any] | None] = [None] * len(jobs)
    if table is not None:
        for index, job in enumerate(jobs):
            with item("palettize", index if in_list else None):
                luts[index] = rounded_tables(job.array.dtype, [table] * prod(job.groups), spec.nbits)
    return _encode(jobs, luts, spec.nbits, spec.mode, num_threads, in_list=in_list)


def kmeans_table(
    array: NDArray[Any], nbits: int, num_threads: int
) -> tuple[NDArray[Any], NDArray[np.uint8], _core.Noise | None]:
    """Return the optimal palette for all weights together, the packed indices, and the noise if it is known.

    Like `palettize`, for any width from 1 to 8 bits: 5 and 7 exist outside ML programs.
    """
    (encoded,) = _core.palettize([array], [(1, 1, array.size)], nbits, "kmeans", [None], [None], False, num_threads)
    if encoded is None:
        raise not_finite("palettize", array, num_threads)
    return encoded


def _palettize_tensor(weight: Any, spec: Palettize, num_threads: int, table: NDArray[Any] | None) -> CompressedTensor:
    def fit(arrays: list[NDArray[Any]], spec: Palettize) -> list[PalettizedTensor]:
        return palettize_all(arrays, spec, num_threads, table, in_list=False)

    def fit_counted(values: NDArray[Any], counts: NDArray[Any], spec: Palettize) -> NDArray[Any]:
        return _counted_table(values, counts, spec.nbits or MOST_BITS, num_threads)

    def fit_quotients(quotients: Quotients, spec: Palettize) -> PalettizedTensor | None:
        if not _has_table_by_pieces(quotients.scale.dtype, spec, table):
            return None
        return _palettize_quotients(quotients, spec, num_threads, table)

    tensor: CompressedTensor
    if not isinstance(weight, CompressedTensor):
        (tensor,) = fit([weight], spec)
        return tensor
    if spec.cluster_dim > 1:
        raise ValueError(f"palettize: cluster_dim {spec.cluster_dim} is for arrays, not for compressed tensors")
    fits = joint.Fits(fit, fit_quotients, fit_counted if table is None and spec.mode == "kmeans" else None)
    return joint.palettize(weight, spec, _palette_groups(weight, spec), fits, num_threads)


def _palettize_scaled(
    jobs: list[_Job], spec: Palettize, num_threads: int, table: NDArray[Any] | None, in_list: bool
) -> list[PalettizedTensor]:
    for index, job in enumerate(jobs):
        with item("palettize", index if in_list else None):
            checked_axis("palettize", "channel_axis", spec.channel_axis or 0, job.array.shape)
    if len(jobs) == 1 and (few := _groups_at_a_time(jobs[0], spec)):
        return [_palettize_scaled_groups(jobs[0], spec, few, num_threads, table)]
    if len(jobs) == 1 and _is_scaled_by_pieces(jobs[0], spec, table):
        (job,) = jobs
        quotients = Quotients(job.array, (spec.channel_axis or 0) % job.array.ndim, num_threads)
        tensor = _palettize_quotients(quotients, spec, num_threads, table)
        lut = tensor.table.reshape(*job.groups, -1, 1)
        return [replace(tensor, shape=job.array.shape, lut=lut, scale=quotients.scale)]
    return _palettize_scaled_together(jobs, spec, num_threads, table, in_list=in_list)


def _palettize_scaled_together(
    jobs: list[_Job], spec: Palettize, num_threads: int, table: NDArray[Any] | None, *, in_list: bool
) -> list[PalettizedTensor]:
    pairs = [normalize(job.array, (spec.channel_axis or 0) % job.array.ndim, num_threads) for job in jobs]
    unscaled = replace(spec, enable_per_channel_scale=False)
    quotients, data = [each for _, each in pairs], [WeightData(job.importance) for job in jobs]
    tensors = palettize_all(quotients, unscaled, num_threads, table, data, in_list=in_list)
    return [replace(tensor, scale=scale) for tensor, (scale, _) in zip(tensors, pairs, strict=True)]


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


def _is_scaled_by_pieces(job: _Job, spec: Palettize, table: NDArray[Any] | None) -> bool:
    """Whether a weight has one table, which can be found without all of its quotients in memory, and is large."""
    plain = (
        job.importance is None and not job.infinities and prod(job.groups) == 1 and job.array.size > tensor_base.PIECE
    )
    return plain and _has_table_by_pieces(job.array.dtype, spec, table)


def _has_table_by_pieces(dtype: np.dtype[Any], spec: Palettize, table: NDArray[Any] | None) -> bool:
    """Whether the table is given, or found from the ends of the values or from how often each of few values is met."""
    if spec.cluster_dim > 1:
        return False
    return table is not None or spec.mode == "uniform" or (spec.mode == "kmeans" and dtype.itemsize == 2)


def _palettize_quotients(
    quotients: Quotients, spec: Palettize, num_threads: int, table: NDArray[Any] | None
) -> PalettizedTensor:
    """Palettize with one table: first find it, then look for the entries; 1-D."""
    nbits, dtype = spec.nbits, quotients.scale.dtype
    assert nbits is not None
    if table is not None:
        luts = rounded_tables(dtype, [table], nbits)
    elif spec.mode == "uniform":
        ends = np.array([_extremes(piece) for piece in quotients.pieces() if piece.size] or [(0, 0)], dtype)
        outermost = _Job(np.array([ends.min(), ends.max()]), None, (1,), infinities=False)
        luts = _encode([outermost], [None], nbits, spec.mode, num_threads)[0][0].table.reshape(1, -1)
    else:
        counts = np.zeros(1 << 16)
        for piece in quotients.pieces():
            counts += np.bincount(piece.view(np.uint16), minlength=counts.size)
        present = np.flatnonzero(counts)
        values = present.astype(np.uint16).view(dtype)
        luts = _counted_table(values, counts[present], nbits, num_threads)[None]

    def indices() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for piece in quotients.pieces():
            job = _Job(piece, None, (1,), infinities=False)
            yield _encode([job], [luts], nbits, "kmeans", num_threads)[0][0].indices, piece.size

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
    ((codes, centers, _),) = _core.kmeans1d(exact, counts[None].astype(np.float64), [entries], num_threads)
    table: NDArray[Any] = rounded_tables(values.dtype, [centers[0, : codes.max() + 1]], nbits)[0]
    return table


def _palettize_scaled_groups(
    job: _Job, spec: Palettize, few: int, num_threads: int, table: NDArray[Any] | None
) -> PalettizedTensor:
    """Palettize contiguous groups, `few` at a time."""
    axis = (spec.channel_axis or 0) % job.array.ndim
    step = few * (job.array.shape[axis] // job.groups[axis])
    parts: list[PalettizedTensor] = []
    for start in range(0, job.array.shape[axis], step):
        place = (*(slice(None),) * axis, slice(start, start + step))
        importance = None if job.importance is None else job.importance[place]
        part = replace(job, array=job.array[place], importance=importance)
        parts += _palettize_scaled_together([part], spec, num_threads, table, in_list=False)
    return PalettizedTensor(
        job.array.shape,
        np.concatenate([part.indices for part in parts]),
        np.concatenate([part.lut for part in parts], axis),
        parts[0].nbits,
        scale=np.concatenate([part.scale for part in parts if part.scale is not None], axis),
    )


def _checked(
    weight: Any, data: WeightData, spec: Palettize, num_threads: int, table: NDArray[Any] | None = None
) -> _Job:
    infinities = False
    # Scalar k-means with equal importance sees every value and detects those that are not finite.
    plain = table is None and data.importance is None and not spec.enable_per_channel_scale
    if plain and spec.mode == "kmeans" and spec.cluster_dim == 1 and spec.nonfinite != "table":
        array = as_weight("palettize", weight)
    elif spec.nonfinite == "table":
        array = as_weight("palettize", weight)
        infinities = _core.count_nonfinite(array, num_threads) > 0
    else:
        array = as_finite_weight("palettize", weight, num_threads)
    job = _Job(array, data.error_weights("palettize", array.shape), _palette_groups(array, spec), infinities)
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


def _encode(
    jobs: list[_Job],
    luts: list[NDArray[Any] | None],
    nbits: int,
    mode: str,
    num_threads: int,
    *,
    in_list: bool = False,
) -> list[Measured]:
    encoded = _core.palettize(
        [job.array for job in jobs],
        [job.layout for job in jobs],
        nbits,
        mode,
        luts,
        [job.importance for job in jobs],
        any(job.infinities for job in jobs),
        num_threads,
    )
    palettized: list[Measured] = []
    for index, (job, result) in enumerate(zip(jobs, encoded, strict=True)):
        if result is None:
            with item("palettize", index if in_list else None):
                raise not_finite("palettize", job.array, num_threads)
        lut, indices, noise = result
        tensor = PalettizedTensor(job.array.shape, indices, lut.reshape(*job.groups, 2**nbits, 1), nbits)
        palettized.append((tensor, noise))
    return palettized


def _palettize_unique(job: _Job, nbits: int | None, num_threads: int) -> Measured:
    most = MOST_ENTRIES if nbits is None else 2**nbits
    distinct = _core.distinct_values(job.array, job.layout, most, num_threads)
    values = [group for group in distinct if group is not None]
    if len(values) < len(distinct):
        rule = f"mode 'unique' needs at most {most} distinct values per table"
        raise TooManyValuesError(
            f"palettize: {rule}, but {len(distinct) - len(values)} have more (shape {job.array.shape})"
        )
    nbits = width_for(max(group.size for group in values), nbits)
    return _encode([job], [rounded_tables(job.array.dtype, values, nbits)], nbits, "kmeans", num_threads)[0]


def _palette_groups(array: NDArray[Any] | CompressedTensor, spec: Palettize) -> tuple[int, ...]:
    """Number of groups along each axis of an array that has elements."""
    if array.size == 0:
        raise ValueError(f"palettize: weight has no elements (shape {array.shape})")
    return group_counts(spec, array.shape)


def given_table(verb: str, name: str, values: Any) -> NDArray[np.float64]:
    """Return a caller's palette as finite numbers, 1-D."""
    table = as_numbers(verb, name, values)
    if table.ndim != 1 or not 1 <= table.size <= MOST_ENTRIES:
        raise ValueError(f"{verb}: {name} must be 1-D with 1 to {MOST_ENTRIES} entries, not shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"{verb}: {name} must be finite")
    return table


def width_for(entries: int, nbits: int | None = None) -> int:
    """The fewest bits for `entries`, or `nbits` if that is enough."""
    fewest = next(width for width in PALETTE_BITS if entries <= 2**width)
    if nbits is not None and nbits < fewest:
        raise ValueError(f"palettize: a lut of {entries} entries needs {fewest} bits, not {nbits}")
    return fewest if nbits is None else nbits


def rounded_tables(
    dtype: np.dtype[Any], tables: list[NDArray[Any]], nbits: int, verb: str = "palettize", name: str = "lut"
) -> NDArray[Any]:
    """Ascending tables, each filled up with its largest entry, in the weight's dtype; -0 becomes 0."""
    filled = [np.pad(table, (0, 2**nbits - table.size), mode="edge") for table in tables]
    exact = np.array(filled, np.float64)
    luts = rounded_to(dtype, exact)
    if np.isinf(luts).sum() > np.isinf(exact).sum():
        raise ValueError(f"{verb}: {name} has entries beyond the range of {dtype}")
    return luts
