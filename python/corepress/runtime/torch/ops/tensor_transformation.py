"""Operations that move elements: shapes, axes, slices, blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ....coreml.format.versions import IOS16, IOS18
from ..limits import limited
from ..registry import implements

Index = tuple["int | slice", ...]


@implements("batch_to_space", exact=True)
def batch_to_space(x: Tensor, *, block_shape: Sequence[int], crops: Sequence[Sequence[int]]) -> Tensor:
    """Blocks of the last two axes from the batch axis, whose slow part they are; then cropped."""
    rows, columns = block_shape
    _, c, h, w = x.shape
    x = x.reshape(rows, columns, -1, c, h, w).permute(2, 3, 4, 0, 5, 1).reshape(-1, c, h * rows, w * columns)
    (top, bottom), (left, right) = crops
    return x[:, :, top : h * rows - bottom, left : w * columns - right]


@implements("space_to_batch", exact=True)
def space_to_batch(x: Tensor, *, block_shape: Sequence[int], paddings: Sequence[Sequence[int]]) -> Tensor:
    """The last two axes, padded with zeros, in blocks; the place in a block is the slow part of the batch axis."""
    rows, columns = block_shape
    (top, bottom), (left, right) = paddings
    limited((*x.shape[:2], x.shape[2] + top + bottom, x.shape[3] + left + right))
    x = F.pad(x, (left, right, top, bottom))
    n, c, h, w = x.shape
    x = x.reshape(n, c, h // rows, rows, w // columns, columns).permute(3, 5, 0, 1, 2, 4)
    return x.reshape(-1, c, h // rows, w // columns)


@implements("depth_to_space", exact=True)
def depth_to_space(x: Tensor, *, block_size: int) -> Tensor:
    """Blocks from the channels: unlike in `pixel_shuffle`, the place in a block is the slow part of the channel."""
    n, c, h, w = x.shape
    depth = c // block_size**2
    x = x.reshape(n, block_size, block_size, depth, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, depth, h * block_size, w * block_size)


@implements("space_to_depth", exact=True)
def space_to_depth(x: Tensor, *, block_size: int) -> Tensor:
    """Blocks to channels: unlike in `pixel_unshuffle`, the place in a block is the slow part of the channel."""
    n, c, h, w = x.shape
    h, w = h // block_size, w // block_size
    x = x.reshape(n, c, h, block_size, w, block_size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block_size**2, h, w)


@implements("pixel_shuffle", exact=True)
def pixel_shuffle(x: Tensor, *, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, upscale_factor)


@implements("pixel_unshuffle", since=IOS16, exact=True)
def pixel_unshuffle(x: Tensor, *, downscale_factor: int) -> Tensor:
    return F.pixel_unshuffle(x, downscale_factor)


@implements("expand_dims", exact=True)
def expand_dims(x: Tensor, *, axes: Sequence[int]) -> Tensor:
    """x with axes of size 1, whose numbers are those in the result."""
    if len(axes) == 1:
        return x.unsqueeze(axes[0])
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


@implements("squeeze", exact=True)
def squeeze(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """x without the given axes, or all axes, of size 1; given ones of another size stay."""
    return torch.squeeze(x) if axes is None else torch.squeeze(x, axes)


@implements("reshape", exact=True)
def reshape(x: Tensor, *, shape: list[int]) -> Tensor:
    """x in another shape: one size may be -1, and 0 is the size of x at the same place, counted from the end.

    Before iOS 17 there are zeros only in shapes of as many axes as x has. Where x has no axis at a place, 0 means 1.
    """
    if 0 in shape:
        missing = len(shape) - x.ndim
        shape = [size or (x.shape[place - missing] if place >= missing else 1) for place, size in enumerate(shape)]
    return torch.reshape(x, shape)


@implements("reshape_like", since=IOS16, exact=True)
def reshape_like(
    x: Tensor, ref_tensors: list[Tensor], *, begins: Sequence[int], ends: Sequence[int], end_masks: Sequence[bool]
) -> Tensor:
    """x in a shape that is joined from parts of other shapes; a part with an end mask goes to the end."""
    sizes: list[int] = []
    for reference, begin, end, to_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += reference.shape[begin:] if to_end else reference.shape[begin:end]
    return torch.reshape(x, sizes)


@implements("reverse", exact=True)
def reverse(x: Tensor, *, axes: Sequence[int] | None = None) -> Tensor:
    return x.flip(tuple(range(x.ndim)) if axes is None else tuple(axes))


@implements("reverse_sequence", exact=True)
def reverse_sequence(x: Tensor, lengths: Tensor, *, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """x with the first elements along one axis reversed, as many as the lengths say for each place of another axis."""
    seq_axis, batch_axis = seq_axis % x.ndim, batch_axis % x.ndim
    size = x.shape[seq_axis]
    places = torch.arange(size, device=x.device).reshape((-1,) + (1,) * (x.ndim - 1 - seq_axis))
    lengths = lengths.long().clamp(0, size).reshape((-1,) + (1,) * (x.ndim - 1 - batch_axis))
    places = torch.where(places < lengths, lengths - 1 - places, places)
    return torch.gather(x, seq_axis, places.expand(x.shape))


@implements("slice_by_index", exact=True)
def slice_by_index(
    x: Tensor,
    *,
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int] | None = None,
    begin_mask: Sequence[bool] | None = None,
    end_mask: Sequence[bool] | None = None,
    squeeze_mask: Sequence[bool] | None = None,
) -> Tensor:
    """x[begin:end:stride] in each axis, as NumPy slices.

    A mask leaves out begin or end: with a negative stride, the slice then starts at the last element or ends with the
    first. Where the squeeze mask is set, the element at begin is taken and the axis removed; one outside of the axis is
    the nearest one.
    """
    if stride is None and squeeze_mask is None:
        for axis, size in enumerate(x.shape):
            first = 0 if begin_mask and begin_mask[axis] else begin[axis]
            last = size if end_mask and end_mask[axis] else end[axis]
            if first or last < size:
                first, last, _ = slice(first, last).indices(size)
                x = x.narrow(axis, first, last - first if last > first else 0)
        return x
    index, reversed_axes = _slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    x = x[index]
    return x.flip(reversed_axes) if reversed_axes else x


@implements("slice_update", since=IOS18, exact=True)
def slice_update(
    x: Tensor,
    update: Tensor,
    *,
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int] | None = None,
    begin_mask: Sequence[bool] | None = None,
    end_mask: Sequence[bool] | None = None,
    squeeze_mask: Sequence[bool] | None = None,
) -> Tensor:
    """x with other values in a slice, which is given as in `slice_by_index`."""
    index, reversed_axes = _slices(x.shape, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    result = x.clone()
    result[index] = update.flip(reversed_axes) if reversed_axes else update
    return result


def _slices(
    shape: Sequence[int],
    begin: Sequence[int],
    end: Sequence[int],
    stride: Sequence[int] | None,
    begin_mask: Sequence[bool] | None,
    end_mask: Sequence[bool] | None,
    squeeze_mask: Sequence[bool] | None,
) -> tuple[Index, list[int]]:
    """An index with positive steps, and the axes of its result that are to be reversed."""
    index: list[int | slice] = []
    reversed_axes: list[int] = []
    squeezed = 0
    for axis, size in enumerate(shape):
        first = None if begin_mask and begin_mask[axis] else begin[axis]
        if squeeze_mask and squeeze_mask[axis]:
            squeezed += 1
            index.append(max(min(first or 0, size - 1), -size))
            continue
        last = None if end_mask and end_mask[axis] else end[axis]
        step = stride[axis] if stride else 1
        if step > 0:
            index.append(slice(first, last, step))
            continue
        if not step:
            raise ValueError(f"stride is not 0, {stride}")
        places = range(*slice(first, last, step).indices(size))
        index.append(slice(places[-1], places[0] + 1, -step) if places else slice(0, 0))
        reversed_axes.append(axis - squeezed)
    return tuple(index), reversed_axes


@implements("slice_by_size", exact=True)
def slice_by_size(x: Tensor, *, begin: Sequence[int], size: Sequence[int]) -> Tensor:
    """As many elements as given from a place on, in each axis; all that follow where the size is -1.

    A negative place counts from the end, and a slice that reaches beyond the end ends there.
    """
    index = []
    for first, count, length in zip(begin, size, x.shape, strict=True):
        if first < 0:
            first = max(first + length, 0)
        index.append(slice(first, None if count < 0 else first + count))
    return x[tuple(index)]


@implements("sliding_windows", exact=True)
def sliding_windows(x: Tensor, *, axis: int, size: int, stride: int = 1) -> Tensor:
    """All windows along an axis; the axis of a window's elements follows that of the windows."""
    axis %= x.ndim
    windows = max(0, (x.shape[axis] - size) // stride + 1) if stride > 0 else 0
    limited((*x.shape[:axis], windows, size, *x.shape[axis + 1 :]))
    return x.unfold(axis, size, stride).movedim(-1, axis + 1)


@implements("transpose", exact=True)
def transpose(x: Tensor, *, perm: list[int]) -> Tensor:
    return torch.permute(x, perm)
