"""How specs divide tensors: the groups that share a palette, the blocks that share a scale."""

from __future__ import annotations

from ..arrays import checked_axis
from ..errors import IndivisibleError
from ..specs import Palettize, Quantize


def group_counts(spec: Palettize, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of groups along each axis; IndivisibleError if groups or vectors do not divide them."""
    counts = [1] * len(shape)
    if spec.granularity == "per_grouped_channel" or spec.cluster_dim > 1:
        axis = checked_axis("palettize", "channel_axis", spec.channel_axis or 0, shape)
        fitted = spec.fitted(shape, axis)
        if fitted.granularity == "per_grouped_channel":
            counts[axis] = shape[axis] // fitted.group_size
    return tuple(counts)


def block_counts(spec: Quantize, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of blocks along each axis; IndivisibleError if they do not divide it."""
    sizes = [0] * len(shape)
    if spec.granularity == "per_block" and not isinstance(spec.block_size, int):
        if len(spec.block_size) != len(shape):
            raise ValueError(f"quantize: block_size {spec.block_size} must have one entry per axis (shape {shape})")
        sizes = list(spec.block_size)
    elif spec.granularity != "per_tensor":
        output = checked_axis("quantize", "channel_axis", spec.channel_axis or 0, shape)
        sizes[output] = 1
        if spec.granularity == "per_block" and isinstance(spec.block_size, int):
            sizes[input_axis(spec.channel_axis or 0, shape)] = spec.block_size
    for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
        if size and length % size:
            which = "last axis" if axis == len(shape) - 1 else f"axis {axis} of length"
            raise IndivisibleError(f"quantize: {which} {length} is not a multiple of block_size {size} (shape {shape})")
    return tuple(length // size if size else 1 for size, length in zip(sizes, shape, strict=True))


def input_axis(output_axis: int, shape: tuple[int, ...]) -> int:
    """The input channel axis that goes with an output channel axis in coremltools' operations."""
    pairs = {0: 1, 1: 0, -1: -2, -2: -1}
    if output_axis not in pairs:
        raise ValueError(
            f"quantize: a block_size of one number needs a channel_axis of 0, 1, -1 or -2, not {output_axis}; "
            f"give one per axis (shape {shape})"
        )
    return checked_axis("quantize", "block_size's input axis", pairs[output_axis], shape)
