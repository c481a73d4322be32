"""Compressing the weights of a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from math import prod
from typing import Any

from numpy.typing import NDArray

from .. import compression
from ..compression import input_axis
from ..errors import IndivisibleError, NonFiniteError, UnsuitableWeightError
from ..specs import Palettize, Prune, Quantize, Spec, spec_from_dict
from .data_types import FLOATS
from .operations import check, lower
from .program import Program, Weight
from .report import Report
from .storage import is_compressed
from .transform import Keep, Outcome, ProgressCallback, StrPath, Work, transform
from .values import MINIMUM_BLOB_COUNT, ValueReader

Config = Spec | dict[str, Any] | Sequence[Any]


def spec_of(config: Config) -> Spec:
    """The one spec that a config stands for."""
    if isinstance(config, Palettize | Quantize | Prune):
        return config
    if isinstance(config, Sequence) and not isinstance(config, str):
        if len(config) != 1:
            raise ValueError(
                f"config: {len(config)} steps; joint compression by several steps is not supported by this version"
            )
        return spec_of(config[0])
    return spec_from_dict(config)  # type: ignore[arg-type]  # it refuses what is not a dict


def compress(
    src: StrPath,
    dst: StrPath,
    config: Config,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    strict: bool = False,
    weight_threshold: int = 2048,
    num_threads: int | None = None,
) -> Report:
    """Compress the weights of an ``.mlpackage``.

    Weights are compressed one after another, or some side by side, while those before them are written straight to the
    new package; everything else is copied as it is. The destination appears only when it is whole, and the source is
    never written to.

    Parameters
    ----------
    src, dst : path-like
        The package to read and the package to write.
    config : dict, list or spec
        What to do: ``{"palettize": {"nbits": 4}}``, a list with one such step, or a spec of `corepress.specs`.
    progress : callable, optional
        Called with a `Progress` at the start and after each weight.
    overwrite : bool
        Replace `dst` if it exists.
    strict : bool
        Raise if a weight cannot be compressed as asked, instead of keeping it and saying so in the report.
    weight_threshold : int
        Weights of this many elements or fewer are kept.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not
        depend on it.

    Returns
    -------
    Report
        One record per weight, and totals.

    Raises
    ------
    ValueError
        If the config is not valid, or the package's specification version cannot express it, or with `strict`.
    FormatError
        If the package is damaged.
    """
    spec = spec_of(config)

    def decide(program: Program, values: ValueReader, weight: Weight) -> Work:
        _require_candidate(weight, weight_threshold)
        try:
            resolved = _resolve_axes(spec, weight)
        except Keep as reason:
            raise _unplanned(weight, reason, strict) from None
        # Groups may have become others than asked for; blocks are described as they were asked for.
        description = resolved.description if isinstance(resolved, Palettize) else spec.description

        def work(threads: int) -> Outcome:
            first = weight.first
            dense = values.read(first.parameters["val"], first.where).data
            try:
                return _compress(dense, resolved, description, program.version, threads)
            except Keep as reason:
                raise _unplanned(weight, reason, strict) from None
            except NonFiniteError as failure:
                raise ValueError(f"{first.name}: {failure}") from failure

        return work

    return transform(
        src,
        dst,
        decide,
        prepare=lambda program: check(spec, program.version),
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
    )


def _require_candidate(weight: Weight, weight_threshold: int) -> None:
    """Keep what no config means."""
    first, count = weight.first, prod(weight.first.shape)
    if is_compressed(weight):
        raise _planned("already compressed")
    if first.data_type not in FLOATS:
        raise _planned(f"{first.data_type.name} is not float16 or float32")
    if len(first.shape) < 2:
        raise _planned("vector, such as a bias or a norm")
    if count <= max(weight_threshold, MINIMUM_BLOB_COUNT - 1):
        raise _planned(f"small: at most {weight_threshold} elements")
    if weight.feeds_definition:
        raise _planned("operand of a compressed weight")
    if not weight.consumers:
        raise _planned("no operation uses it")
    if weight.feeds_output:
        raise _planned("block output, which Core ML does not take from a compressed weight")


def _planned(reason: str) -> Keep:
    return Keep(reason, planned=True)


def _unplanned(weight: Weight, reason: Keep, strict: bool) -> Exception:
    """With `strict`, keeping a weight that the config means is an error."""
    return ValueError(f"{weight.first.name} (shape {weight.first.shape}): {reason}") if strict else reason


def _resolve_axes(spec: Spec, weight: Weight) -> Spec:
    """Fill in the axes from the consumers, and see that the spec fits the shape."""
    if isinstance(spec, Prune):
        _require_structure(spec, weight)
        return spec
    by_channel = isinstance(spec, Palettize) and (spec.cluster_dim > 1 or spec.enable_per_channel_scale)
    if spec.granularity == "per_tensor" and not by_channel:
        return spec
    shape = weight.first.shape
    if isinstance(spec, Quantize) and spec.granularity == "per_block":
        sizes = _block_sizes(spec, weight)
        for axis, size in enumerate(sizes):
            if size and shape[axis] % size:
                raise Keep(f"block_size {size} does not divide axis {axis} of length {shape[axis]}")
        return dataclasses.replace(spec, block_size=sizes)
    axis = _channel_axis(spec, weight)
    resolved = dataclasses.replace(spec, channel_axis=axis)
    if not isinstance(resolved, Palettize):
        return resolved
    if isinstance(spec, Palettize) and spec.cluster_dim > 1:
        _require_vectors(resolved.cluster_dim, axis % len(shape), weight)
    try:
        return resolved.fitted(shape, axis % len(shape))
    except IndivisibleError as failure:
        if resolved.indivisible == "error":
            raise ValueError(f"{weight.first.name}: {failure}") from failure
        reason = f"group_size {resolved.group_size} does not divide axis {axis} of length {shape[axis]}"
        raise Keep(reason) from failure


def _require_vectors(cluster_dim: int, axis: int, weight: Weight) -> None:
    """Keep what vectors do not divide, or would join across the groups of a convolution."""
    length = weight.first.shape[axis]
    for groups in weight.groups if axis == 0 else {1}:
        if groups is None:
            raise Keep("its convolution's groups are not known beforehand, so vectors might join them")
        if length % groups or length // groups % cluster_dim:
            part = "" if groups == 1 else f" in {groups} groups"
            raise Keep(f"cluster_dim {cluster_dim} does not divide axis {axis} of length {length}{part}")


def _require_structure(spec: Prune, weight: Weight) -> None:
    """Keep what coremltools does not prune in groups either."""
    if not spec.is_structured:
        return
    for consumer in weight.consumers:
        if consumer.operation not in ("conv", "linear") or consumer.operand != "weight":
            place = f"{consumer.operand} of {consumer.operation}"
            raise Keep(f"n_m_ratio and block_size are for weights of conv and linear, this is {place}")
    length = weight.first.shape[spec.axis]
    name, size = ("m", spec.n_m_ratio[1]) if spec.n_m_ratio is not None else ("block_size", spec.block_size or 0)
    if 2 * size > length:
        raise Keep(f"{name} {size} is more than half of axis {spec.axis} of length {length}")


def _channel_axis(spec: Palettize | Quantize, weight: Weight) -> int:
    rank = len(weight.first.shape)
    axis = spec.channel_axis
    if axis is None:
        axis = _agreed(weight.axes, "output")
    if not -rank <= axis < rank:
        raise Keep(f"rank {rank} has no channel_axis {axis}")
    return axis


def _block_sizes(spec: Quantize, weight: Weight) -> tuple[int, ...]:
    """One size per axis, 0 for a whole one."""
    shape = weight.first.shape
    if not isinstance(spec.block_size, int):
        if len(spec.block_size) != len(shape):
            raise Keep(f"block_size {spec.block_size} does not have one entry for each axis of shape {shape}")
        return spec.block_size
    output = _channel_axis(spec, weight)
    if spec.channel_axis is None:
        source = _agreed(weight.input_axes, "input")
    else:
        try:
            source = input_axis(spec.channel_axis, shape)
        except ValueError as failure:
            raise Keep(str(failure)) from failure
    sizes = [0] * len(shape)
    sizes[output], sizes[source] = 1, spec.block_size
    return tuple(sizes)


def _agreed(axes: set[int | None], which: str) -> int:
    axis = next(iter(axes)) if len(axes) == 1 else None
    if axis is None:
        raise Keep(f"its consumers disagree on the {which} channel axis")
    return axis


def _compress(dense: NDArray[Any], spec: Spec, description: str, version: int, num_threads: int) -> Outcome:
    try:
        tensor, snr_db = compression.apply_measured(dense, spec, num_threads=num_threads)
        form = lower(tensor, version)
    except NonFiniteError as failure:
        if spec.nonfinite == "error":
            raise
        raise Keep(failure.reason) from failure
    except UnsuitableWeightError as failure:
        raise Keep(failure.reason) from failure
    return Outcome(form, "compressed", description, snr_db)
