"""Shapes and the order of elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from ..limits import limit_joined
from .registry import Given, Run, layer, operation
from .shapes import CHANNEL, SEQUENCE, axis_of, batched, integers, limited, require_rank

_REORGANIZATIONS = (
    ("space_to_depth", "block_size"),
    ("depth_to_space", "block_size"),
    ("pixel_shuffle", "upscale_factor"),
)


@layer("reshape")
def reshape(given: Given) -> Run:
    """Of tensors of rank 5, in the order of their elements, or with the channels as the last axis."""
    target, channels_last = [int(size) for size in given.params.targetShape], given.params.mode == 1
    if len(target) not in (3, 4):
        raise ValueError(f"targetShape must have 3 or 4 sizes, not {target}")
    channels, height, width = target[-3:]
    sequence = target[0] if len(target) == 4 else None

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        x = x[(None,) * max(0, 5 - x.dim())]
        length, batch = x.shape[0] if sequence is None else sequence, x.shape[1]
        x = x.transpose(0, 1)
        if channels_last:
            x = x.permute(0, 1, 3, 4, 2).reshape(batch, length, height, width, channels).permute(0, 1, 4, 2, 3)
        else:
            x = x.reshape(batch, length, channels, height, width)
        return x.transpose(0, 1)

    return run


@layer("flatten")
def flatten(given: Given) -> Run:
    """The last three axes become the channels, in the order of their elements, or with the channels last."""
    channels_last = given.params.mode == 1

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        return (x.movedim(CHANNEL, -1) if channels_last else x).flatten(-3)[..., None, None]

    return run


@layer("permute")
def permute(given: Given) -> Run:
    """Of sequence, channels, height and width of a tensor of rank 5."""
    order = [int(axis) for axis in given.params.axis] or [0, 1, 2, 3]
    if sorted(order) != [0, 1, 2, 3]:
        raise ValueError(f"axis must be a permutation of 0, 1, 2, 3, not {order}")
    places = (0, 2, 3, 4)
    sequence, channels, height, width = (places[axis] for axis in order)

    def run(x: Tensor) -> Tensor:
        if x.dim() != 5:
            raise ValueError(f"its input must have rank 5, not {x.dim()} (shape {tuple(x.shape)})")
        return x.permute(sequence, 1, channels, height, width)

    return run


@layer("transpose")
def transpose(given: Given) -> Run:
    """Of any axes; of the last ones, where the input has more, of size 1: an image has an axis more than its array."""
    axes = [int(axis) for axis in given.params.axes]

    def run(x: Tensor) -> Tensor:
        more = x.dim() - len(axes)
        if more > 0 and all(size == 1 for size in x.shape[:more]):
            return x.permute(*range(more), *(axis + more for axis in axes))
        return x.permute(axes)

    return run


@layer("reorganizeData")
def reorganize(given: Given) -> Run:
    """Between channels and blocks of pixels."""
    mode, block = given.params.mode, int(given.params.blockSize)
    if not 0 <= mode < len(_REORGANIZATIONS) or block < 1:
        raise ValueError(f"there is no reorganization {mode} with blocks of {block}")
    name, option = _REORGANIZATIONS[mode]
    compute, options = operation(name), {option: block}
    return lambda x: batched(lambda each: compute(each, **options), x)


@layer("concat")
def concat(given: Given) -> Run:
    """Along the channels or the sequence."""
    axis = SEQUENCE if given.params.sequenceConcat else CHANNEL

    def run(*values: Tensor) -> Tensor:
        require_rank(values[0], -axis)
        limit_joined(values)
        return torch.cat(values, axis)

    return run


@layer("concatND")
def concat_nd(given: Given) -> Run:
    """Along any axis."""
    axis, interleave = given.params.axis, given.params.interleave

    def run(*values: Tensor) -> Tensor:
        limit_joined(values)
        if not interleave:
            return torch.cat(values, axis)
        place = axis_of(axis, values[0].dim())
        return torch.stack(values, place + 1).flatten(place, place + 1)

    return run


@layer("stack")
def stack(given: Given) -> Run:
    """Along a new axis."""
    compute, axis = operation("stack"), given.params.axis
    return lambda *values: compute(values, axis=axis)


@layer("sequenceRepeat")
def sequence_repeat(given: Given) -> Run:
    """The sequence, several times."""
    times = int(given.params.nRepetitions) or 1

    def run(x: Tensor) -> Tensor:
        require_rank(x, 5)
        limited((x.shape[SEQUENCE] * times, *x.shape[SEQUENCE + 1 :]))
        return x.repeat(*(1,) * (x.dim() - 5), times, 1, 1, 1, 1)

    return run


@layer("tile")
def tile(given: Given) -> Run:
    """Copies along every axis; numbers of copies are a parameter or the second input."""
    stored = [int(times) for times in given.params.reps]

    def run(x: Tensor, reps: Tensor | None = None) -> Tensor:
        times = stored if reps is None else integers(reps)
        if len(times) > x.dim():
            raise ValueError(f"{len(times)} numbers of copies for a tensor of rank {x.dim()}")
        times = [1] * (x.dim() - len(times)) + times
        limited([size * count for size, count in zip(x.shape, limited(times), strict=True)])
        return x.repeat(times)

    return run


@layer("squeeze")
def squeeze(given: Given) -> Run:
    """Axes of size 1 are removed; one remains."""
    axes, everything = [int(axis) for axis in given.params.axes], given.params.squeezeAll

    def run(x: Tensor) -> Tensor:
        if everything:
            return x.squeeze()
        wrong = [axis for axis in axes if x.shape[axis_of(axis, x.dim())] != 1]
        if wrong:
            raise ValueError(f"axes {wrong} of shape {tuple(x.shape)} cannot be removed: their sizes are not 1")
        return x.squeeze(axes)

    return run


@layer("expandDims")
def expand_dims(given: Given) -> Run:
    """New axes of size 1, at places in the output."""
    axes = [int(axis) for axis in given.params.axes]

    def run(x: Tensor) -> Tensor:
        rank = x.dim() + len(axes)
        for axis in sorted(axis_of(axis, rank) for axis in axes):
            x = x.unsqueeze(axis)
        return x

    return run


@layer("flattenTo2D")
def flatten_to_2d(given: Given) -> Run:
    """The axes before a place, and those from there on."""
    axis = given.params.axis

    def run(x: Tensor) -> Tensor:
        place = axis if 0 <= axis <= x.dim() else axis_of(axis, x.dim())
        return x.reshape(prod(x.shape[:place]), prod(x.shape[place:]))

    return run


def _reshaped(x: Tensor, target: Sequence[int]) -> Tensor:
    """With 0 for a size that is kept, where the rank is the same, and -1 for one that follows from the others."""
    sizes = list(target)
    if len(sizes) == x.dim() and x.numel():
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


@layer("reshapeLike")
def reshape_like(given: Given) -> Run:
    """To the shape of the second input."""
    return lambda x, like: x.reshape(like.shape)


@layer("reshapeStatic", "rankPreservingReshape")
def reshape_static(given: Given) -> Run:
    """To a given shape."""
    target = [int(size) for size in given.params.targetShape]
    return lambda x: _reshaped(x, target)


@layer("reshapeDynamic")
def reshape_dynamic(given: Given) -> Run:
    """To a shape that is computed in the run."""
    return lambda x, shape: _reshaped(x, integers(shape))


@layer("broadcastToLike")
def broadcast_like(given: Given) -> Run:
    """To the shape of the second input."""
    return lambda x, like: x.broadcast_to(like.shape)


@layer("broadcastToStatic")
def broadcast_static(given: Given) -> Run:
    """To a given shape."""
    target = limited(given.params.targetShape)
    return lambda x: x.broadcast_to(target)


@layer("broadcastToDynamic")
def broadcast_dynamic(given: Given) -> Run:
    """To a shape that is computed in the run."""
    return lambda x, shape: x.broadcast_to(limited(integers(shape)))


@layer("reverse")
def reverse(given: Given) -> Run:
    """Of some axes."""
    axes = [axis for axis, reversed_ in enumerate(given.params.reverseDim) if reversed_]
    return lambda x: x.flip(axes)


@layer("reverseSeq")
def reverse_sequence(given: Given) -> Run:
    """The first elements of each sequence; their numbers are the second input."""
    compute = operation("reverse_sequence")
    options = {"seq_axis": given.params.sequenceAxis, "batch_axis": given.params.batchAxis}
    return lambda x, lengths: compute(x, lengths.long(), **options)


@layer("getShape")
def get_shape(given: Given) -> Run:
    """As numbers."""
    return lambda x: x.new_tensor(x.shape)
