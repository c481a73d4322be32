"""Operations on whole tensors: sorting, joining, splitting, padding, filling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ....coreml.format.versions import IOS16, IOS17
from ..limits import ELEMENT_LIMIT, limit_joined, limited
from ..registry import implements


@implements("argsort", exact=True)
def argsort(x: Tensor, *, axis: int = -1, ascending: bool = False) -> Tensor:
    """Indices that sort x, in descending order unless asked otherwise; equal elements keep their order."""
    return torch.sort(x, stable=True, dim=axis, descending=not ascending).indices


@implements("band_part", exact=True)
def band_part(x: Tensor, *, lower: int = -1, upper: int = -1) -> Tensor:
    """Matrices with zeros outside of a band of diagonals around the main one; a negative number keeps all of a side."""
    if lower >= 0:
        x = torch.triu(x, -lower)
    return torch.tril(x, upper) if upper >= 0 else x


@implements("concat", exact=True)
def concat(values: list[Tensor], *, axis: int, interleave: bool = False) -> Tensor:
    """Tensors joined along an axis, or interleaved along it: first slices first, then second slices."""
    limit_joined(values)
    if not values[0].ndim:
        return torch.stack(values)
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@implements("cumsum")
def cumsum(x: Tensor, *, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """Sums of the elements up to each one, or without it; from the end where reverse."""
    if reverse:
        x = x.flip(axis)
    size = x.shape[axis]
    if exclusive and size:
        zeros = torch.zeros_like(x.narrow(axis, 0, 1))
        x = torch.cat([zeros, x.narrow(axis, 0, size - 1)], axis)
    x = torch.cumsum(x, axis)
    return x.flip(axis) if reverse else x


@implements("fill", exact=True)
def fill(value: Tensor | None = None, *, shape: Sequence[int]) -> Tensor:
    """One value in all places: a view, which takes no memory."""
    return (torch.zeros(()) if value is None else value).expand(limited(shape))


@implements("fill_like", since=IOS16, exact=True)
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    """One value in all places of the shape of another tensor: a view, which takes no memory."""
    return (
        ref_tensor.new_zeros((), dtype=torch.float32).expand(ref_tensor.shape)
        if value is None
        else value.expand(ref_tensor.shape)
    )


@implements("flatten2d", exact=True)
def flatten2d(x: Tensor, *, axis: int = 1) -> Tensor:
    """A matrix; its rows are the axes before the given one."""
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@implements("identity", exact=True)
def identity(x: Tensor) -> Tensor:
    return x


@implements("non_maximum_suppression", exact=True)
def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    score_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The boxes that overlap none of a higher score by more than a threshold, the highest score first.

    Boxes are (x, y, width, height), x and y being the center's. The score of a box is the best one of its classes, and
    with per-class suppression it competes with the boxes of the same best class only. Where no score reaches the
    threshold, the best box alone is selected. Rows that stay empty are zeros with the index -1.

    Returns
    -------
    boxes, scores, indices, number of boxes
        Of shapes (n, max_boxes, 4), (n, max_boxes, classes), (n, max_boxes) and (n,).
    """
    limited((*boxes.shape[:1], max_boxes, max(boxes.shape[-1], scores.shape[-1])))
    picked = [
        _suppress(each, score, iou_threshold, score_threshold, max_boxes, per_class_suppression)
        for each, score in zip(boxes.detach().cpu(), scores.detach().cpu(), strict=True)
    ]
    counts = torch.tensor([len(each) for each in picked], dtype=torch.int32, device=boxes.device)
    indices = torch.tensor([each + [-1] * (max_boxes - len(each)) for each in picked], device=boxes.device)
    indices = indices.reshape(boxes.shape[0], max_boxes)
    return _rows(boxes, indices), _rows(scores, indices), indices, counts


@implements("non_maximum_suppression", since=IOS17, exact=True)
def non_maximum_suppression_of_columns(
    boxes: Tensor,
    scores: Tensor,
    *,
    iou_threshold: float,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same of boxes (n, 4, boxes) and scores (n, classes, boxes), without a threshold of scores.

    Returns
    -------
    boxes, scores, indices
        Of shapes (n, 4, max_boxes), (n, classes, max_boxes) and (n, max_boxes).
    """
    selected, selected_scores, indices, _ = non_maximum_suppression(
        boxes.transpose(1, 2),
        scores.transpose(1, 2),
        iou_threshold=iou_threshold,
        score_threshold=-math.inf,
        max_boxes=max_boxes,
        per_class_suppression=per_class_suppression,
    )
    return selected.transpose(1, 2), selected_scores.transpose(1, 2), indices


def _suppress(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_threshold: float, max_boxes: int, per_class: bool
) -> list[int]:
    """The indices of the boxes that survive, in descending order of their scores."""
    if not boxes.shape[0]:
        return []
    best, classes = scores.max(-1)
    order = torch.sort(best, stable=True, descending=True).indices
    half = boxes[order, 2:] / 2
    low, high = boxes[order, :2] - half, boxes[order, :2] + half
    area = (high - low).prod(-1)
    classes = classes[order]
    alive = best[order] >= score_threshold
    picked: list[int] = []
    while len(picked) < max_boxes:
        first = int(alive.to(torch.uint8).argmax())
        if not alive[first]:
            break
        picked.append(first)
        sides = torch.minimum(high, high[first]) - torch.maximum(low, low[first])
        shared = sides.clamp(min=0).prod(-1)
        union = area + area[first] - shared
        overlapping = (shared > iou_threshold * union) & (union > 0)
        if per_class:
            overlapping &= classes == classes[first]
        alive &= ~overlapping
        alive[: first + 1] = False
    found: list[int] = order[picked or [0]].tolist()
    return found[:max_boxes]


def _rows(x: Tensor, indices: Tensor) -> Tensor:
    """The rows of each matrix at indices; zeros where these are negative."""
    if not x.shape[1]:
        return x.new_zeros((*indices.shape, x.shape[2]))
    places = indices.clamp(min=0).unsqueeze(-1).expand(-1, -1, x.shape[2])
    return torch.where(indices.unsqueeze(-1) >= 0, torch.gather(x, 1, places), 0)


@implements("non_zero", exact=True)
def non_zero(x: Tensor) -> Tensor:
    """The coordinates of the elements that are not zero, one row each."""
    return torch.nonzero(x)


@implements("one_hot", exact=True)
def one_hot(
    indices: Tensor,
    *,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: float = 1,
    off_value: float = 0,
) -> Tensor:
    """Vectors along a new axis with one value at the index and another elsewhere: everywhere for other indices."""
    limited((*indices.shape, one_hot_vector_size))
    places = torch.arange(one_hot_vector_size, device=indices.device)
    if axis < 0:
        axis += indices.ndim + 1
    places = places.reshape((-1,) + (1,) * (indices.ndim - axis))
    return torch.where(indices.unsqueeze(axis) == places, on_value, off_value)


@implements("pad", exact=True)
def pad(x: Tensor, *, pad: Sequence[int], mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """x with more elements before and after it along its last axes, to which the pairs of numbers belong."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if len(pairs) > x.ndim:
        raise ValueError(f"pad has at most two numbers for each of {x.ndim} axes, {len(pad)}")
    first = x.ndim - len(pairs)
    limited(size + before + after for size, (before, after) in zip(x.shape[first:], pairs, strict=True))
    if mode == "constant":
        return torch.constant_pad_nd(x, [each for pair in reversed(pairs) for each in pair], constant_val)
    if mode not in ("reflect", "replicate"):
        raise ValueError(f"mode is constant, reflect or replicate, {mode}")
    for axis, (before, after) in enumerate(pairs, first):
        if before or after:
            x = x.index_select(axis, _border(x, x.shape[axis], before, after, mode == "reflect"))
    return x


def _border(x: Tensor, size: int, before: int, after: int, reflect: bool) -> Tensor:
    """Indices of the elements of an axis with those that are repeated before and after it."""
    if not size:
        raise ValueError(f"an axis without elements is padded with a constant only, shape {tuple(x.shape)}")
    places = torch.arange(-before, size + after, device=x.device)
    if not reflect or size == 1:
        return places.clamp(0, size - 1)
    period = 2 * (size - 1)
    places = places.remainder(period)
    return torch.minimum(places, period - places)


@implements("range_1d")
def range_1d(start: Tensor, *, end: float, step: float) -> Tensor:
    """Numbers from start on in steps, without the end; none where the steps lead away from it."""
    first = start.item()
    if not step:
        raise ValueError(f"step is not 0, {step}")
    count = (end - first) / step
    if count > ELEMENT_LIMIT:
        raise ValueError(f"a range of {count:.4g} numbers is too long; the limit is {ELEMENT_LIMIT} on this machine")
    if not count > 0:
        return start.new_zeros(0)
    return torch.arange(first, end, step, dtype=start.dtype, device=start.device)


@implements("shape", exact=True)
def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32, device=x.device)


@implements("split", exact=True)
def split(
    x: Tensor, *, axis: int, num_splits: int | None = None, split_sizes: list[int] | None = None
) -> tuple[Tensor, ...]:
    """Parts of x along an axis, of given sizes or of the same size."""
    if split_sizes is not None:
        return x.split_with_sizes(split_sizes, axis)
    size = x.shape[axis]
    if not num_splits or size % num_splits:
        raise ValueError(f"num_splits divides the size {size} of axis {axis}, {num_splits}")
    return x.split_with_sizes([size // num_splits] * num_splits, axis)


@implements("stack", exact=True)
def stack(values: list[Tensor], *, axis: int) -> Tensor:
    limit_joined(values)
    return torch.stack(values, axis)


@implements("tile", exact=True)
def tile(x: Tensor, *, reps: Sequence[int]) -> Tensor:
    """x repeated along each axis."""
    limited(size * count for size, count in zip(x.shape, reps, strict=True))
    return x.repeat(*reps)


@implements("topk", exact=True)
def topk(x: Tensor, *, k: int = 1, axis: int = -1, ascending: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest elements in descending order, or the smallest in ascending order, and their indices.

    Equal elements keep their order; k = -1 selects all elements.
    """
    size = x.shape[axis]
    if k == -1:
        k = size
    if not 0 <= k <= size:
        raise ValueError(f"k is -1 or from 0 to {size}, the size of axis {axis}, {k}")
    values, indices = torch.sort(x, stable=True, dim=axis, descending=not ascending)
    return values.narrow(axis, 0, k), indices.narrow(axis, 0, k)


@implements("topk", since=IOS16, exact=True)
def topk_with_choices(
    x: Tensor,
    *,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | tuple[Tensor, Tensor]:
    """The same, without indices where they are not wanted; always sorted. (iOS 17 added ``output_indices_dtype``.)"""
    values, indices = topk(x, k=k, axis=axis, ascending=ascending)
    return (values, indices) if return_indices else values
