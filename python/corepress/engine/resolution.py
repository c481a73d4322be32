"""Specs made for a weight: axes and groups from the operations that use it, and whether they fit its shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from ..compression.divisions import input_axis
from ..errors import IndivisibleError, Skip
from ..specs import Palettize, Prune, Quantize, Spec
from .weights import Weight


def resolve(spec: Spec, weight: Weight) -> Spec:
    """A spec with the axes and groups of a weight filled in; raises `Skip` if it does not apply to this weight."""
    resolved: Spec = _RESOLVE[type(spec)](spec, weight)
    return resolved


def resolve_all(steps: Sequence[Spec], weight: Weight) -> tuple[Spec, ...]:
    """Like `resolve`, for each step of several."""
    return tuple(resolve(step, weight) for step in steps)


def _palettize(spec: Palettize, weight: Weight) -> Palettize:
    if spec.granularity == "per_tensor" and spec.cluster_dim == 1 and not spec.enable_per_channel_scale:
        return spec
    shape, axis = weight.shape, _channel_axis(spec, weight)
    if spec.cluster_dim > 1:
        _require_vectors(spec.cluster_dim, axis % len(shape), weight)
    try:
        return dataclasses.replace(spec, channel_axis=axis).fitted(shape, axis % len(shape))
    except IndivisibleError as failure:
        if spec.indivisible == "error":
            raise ValueError(f"{weight.name}: {failure}") from failure
        raise Skip(f"group_size {spec.group_size} does not divide axis {axis} of length {shape[axis]}") from failure


def _quantize(spec: Quantize, weight: Weight) -> Quantize:
    if spec.granularity == "per_tensor":
        return spec
    if spec.granularity == "per_channel":
        return dataclasses.replace(spec, channel_axis=_channel_axis(spec, weight))
    sizes = _block_sizes(spec, weight)
    for axis, (size, length) in enumerate(zip(sizes, weight.shape, strict=True)):
        if size and length % size:
            raise Skip(f"block_size {size} does not divide axis {axis} of length {length}")
    return dataclasses.replace(spec, block_size=sizes)


# Operands whose rows are multiplied with inputs. Of Core ML's, those that coremltools prunes in groups too.
_PRUNED_IN_GROUPS = {
    *((name, "weight") for name in ("conv", "linear", "conv2d", "conv3d", "conv_transpose2d")),
    *((name, "y") for name in ("batch_matmul", "broadcasting_batch_matmul")),
}


def _prune(spec: Prune, weight: Weight) -> Prune:
    """A spec with its axis filled in; structures are only for weights of layers."""
    if not spec.is_structured:
        return spec
    for consumer in weight.consumers:
        if (consumer.operation, consumer.operand) not in _PRUNED_IN_GROUPS:
            place = f"{consumer.operand} of {consumer.operation}"
            raise Skip(f"n_m_ratio and block_size are for weights of convolutions and linear layers, this is {place}")
    if spec.dim is None:
        inputs = spec.n_m_ratio is not None
        axis = _agreed(weight.input_axes if inputs else weight.axes, "input" if inputs else "output")
        if axis != spec.axis:
            if axis not in (0, 1):
                raise Skip(f"n_m_ratio and block_size are along axis 0 or 1, its channels are along axis {axis}")
            spec = dataclasses.replace(spec, dim=axis)
    require_half_axes(spec, weight)
    return spec


_RESOLVE: dict[type, Callable[..., Spec]] = {Palettize: _palettize, Quantize: _quantize, Prune: _prune}


def _require_vectors(cluster_dim: int, axis: int, weight: Weight) -> None:
    """Skip weights that vectors do not divide, or where they would span the groups of a convolution."""
    length = weight.shape[axis]
    for groups in weight.groups if axis == 0 else {1}:
        if groups is None:
            raise Skip("the groups of its convolution are not known in advance, so vectors might span them")
        if length % groups or length // groups % cluster_dim:
            part = "" if groups == 1 else f" in {groups} groups"
            raise Skip(f"cluster_dim {cluster_dim} does not divide axis {axis} of length {length}{part}")


def require_half_axes(spec: Prune, weight: Weight) -> None:
    """Skip weights that structured pruning would divide into fewer than two parts."""
    length = weight.shape[spec.axis]
    name, size = ("m", spec.n_m_ratio[1]) if spec.n_m_ratio is not None else ("block_size", spec.block_size or 0)
    if 2 * size > length:
        raise Skip(f"{name} {size} is more than half of axis {spec.axis} of length {length}")


def _channel_axis(spec: Palettize | Quantize, weight: Weight) -> int:
    rank = len(weight.shape)
    axis = spec.channel_axis
    if axis is None:
        axis = _agreed(weight.axes, "output")
    if not -rank <= axis < rank:
        raise Skip(f"rank {rank} has no channel_axis {axis}")
    return axis


def _block_sizes(spec: Quantize, weight: Weight) -> tuple[int, ...]:
    """One size per axis, 0 for a whole one."""
    shape = weight.shape
    if not isinstance(spec.block_size, int):
        if len(spec.block_size) != len(shape):
            raise Skip(f"block_size {spec.block_size} does not have one entry for each axis of shape {shape}")
        return spec.block_size
    output = _channel_axis(spec, weight)
    if spec.channel_axis is None:
        source = _agreed(weight.input_axes, "input")
    else:
        try:
            source = input_axis(spec.channel_axis, shape)
        except ValueError as failure:
            raise Skip(str(failure)) from failure
    sizes = [0] * len(shape)
    sizes[output], sizes[source] = 1, spec.block_size
    return tuple(sizes)


def _agreed(axes: set[int | None], which: str) -> int:
    axis = next(iter(axes)) if len(axes) == 1 else None
    if axis is None:
        raise Skip(f"its consumers disagree on the {which} channel axis; give channel_axis")
    return axis
