"""Elements chosen by index, by value or by condition. Indices outside of an axis are clamped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registry import Given, Run, layer, operation
from .shapes import axis_of, integer, limited

_SCATTER_MODES = ("update", "add", "sub", "mul", "div", "max", "min")


@layer("gather", "gatherAlongAxis")
def gather(given: Given) -> Run:
    """Along an axis; negative indices count from its end."""
    compute = operation("gather" if given.layer_type == "gather" else "gather_along_axis")
    axis = given.params.axis
    return lambda x, indices: compute(x, indices.long(), axis=axis)


@layer("gatherND")
def gather_nd(given: Given) -> Run:
    """By the indices of several axes."""
    compute = operation("gather_nd")
    return lambda x, indices: compute(x, indices.long())


@layer("scatter", "scatterAlongAxis")
def scatter(given: Given) -> Run:
    """Into a copy of the first input, along an axis; negative indices count from its end."""
    compute = operation("scatter" if given.layer_type == "scatter" else "scatter_along_axis")
    axis, mode = given.params.axis, _SCATTER_MODES[given.params.mode]
    return lambda x, indices, updates: compute(x, indices.long(), updates, axis=axis, mode=mode)


@layer("scatterND")
def scatter_nd(given: Given) -> Run:
    """Into a copy of the first input, by the indices of several axes."""
    compute, mode = operation("scatter_nd"), _SCATTER_MODES[given.params.mode]
    return lambda x, indices, updates: compute(x, indices.long(), updates, mode=mode)


@layer("topK")
def top_k(given: Given) -> Run:
    """The largest or smallest values along an axis, and their indices; of equal values those that come first."""
    compute, stored = operation("topk"), int(given.params.K)
    axis, ascending = given.params.axis, given.params.useBottomK

    def run(x: Tensor, k: Tensor | None = None) -> Any:
        count = stored if k is None else integer(k)
        if not 0 <= count <= x.shape[axis_of(axis, x.dim())]:
            raise ValueError(f"K must be at most the size of axis {axis} of shape {tuple(x.shape)}, not {count}")
        return compute(x, k=count, axis=axis, ascending=ascending)

    return run


@layer("argSort")
def arg_sort(given: Given) -> Run:
    """The order of values along an axis; equal ones stay in place."""
    axis, descending = given.params.axis, given.params.descending
    return lambda x: torch.sort(x, dim=axis, descending=descending, stable=True)[1]


@layer("whereNonZero")
def where_non_zero(given: Given) -> Run:
    """The indices of all elements that are not 0, one a row."""
    return lambda x: torch.nonzero(x)


@layer("whereBroadcastable")
def where(given: Given) -> Run:
    """Of the second input where the first is not 0, else of the third."""
    compute = operation("select")
    return lambda condition, x, y: compute(condition != 0, x, y)


@layer("matrixBandPart")
def band_part(given: Given) -> Run:
    """Of matrices, with zeros elsewhere; negative numbers keep everything on their side."""
    compute, lower, upper = operation("band_part"), given.params.numLower, given.params.numUpper
    return lambda x: compute(x, lower=lower, upper=upper)


@layer("lowerTriangular")
def lower_triangular(given: Given) -> Run:
    """Of matrices, with zeros elsewhere."""
    k = given.params.k
    return lambda x: torch.tril(x, k)


@layer("upperTriangular")
def upper_triangular(given: Given) -> Run:
    """Of matrices, with zeros elsewhere."""
    k = given.params.k
    return lambda x: torch.triu(x, k)


@layer("oneHot")
def one_hot(given: Given) -> Run:
    """A vector for each index, along a new axis; for one outside of it all values are `offValue`."""
    params = given.params
    stored, axis, on, off = int(params.oneHotVectorSize), params.axis, params.onValue, params.offValue

    def run(x: Tensor, size: Tensor | None = None) -> Tensor:
        count = stored if size is None else integer(size)
        limited((*x.shape, count))
        hit = x.long()[..., None] == torch.arange(count, device=x.device)
        return torch.where(hit, on, off).movedim(-1, axis_of(axis, x.dim() + 1))

    return run


@layer("cumSum")
def cumulative_sum(given: Given) -> Run:
    """Along an axis, which is a parameter or the second input."""
    params = given.params
    compute, stored = operation("cumsum"), params.axis
    options = {"exclusive": params.excludeFinalSum, "reverse": params.reverse}

    def run(x: Tensor, axis: Tensor | None = None) -> Tensor:
        place = axis_of(stored if axis is None else integer(axis), x.dim())
        result: Tensor = compute(x, axis=place, **options)
        return result

    return run


@layer("NonMaximumSuppression")
def suppression(given: Given) -> Run:
    """Boxes that overlap no better one, their scores, their indices and how many there are."""
    params = given.params
    compute, per_class = operation("non_maximum_suppression"), params.perClassSuppression
    stored = (params.iouThreshold, params.scoreThreshold, int(params.maxBoxes))

    def run(
        boxes: Tensor,
        scores: Tensor,
        iou: Tensor | None = None,
        score: Tensor | None = None,
        most: Tensor | None = None,
    ) -> Any:
        return compute(
            boxes,
            scores,
            iou_threshold=stored[0] if iou is None else float(iou),
            score_threshold=stored[1] if score is None else float(score),
            max_boxes=stored[2] if most is None else integer(most),
            per_class_suppression=per_class,
        )

    return run
