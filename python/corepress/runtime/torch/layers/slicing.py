"""Parts of tensors, and borders around them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .conv import border, pair
from .registry import Given, Run, layer, operation
from .shapes import CHANNEL, HEIGHT, WIDTH, axis_of, integer, integers, limited, require_rank

_AXES = (CHANNEL, HEIGHT, WIDTH)


@layer("slice")
def slice_axis(given: Given) -> Run:
    """Of the channels, the height or the width."""
    params = given.params
    axis, stride = _AXES[params.axis], int(params.stride) or 1
    part = slice(params.startIndex, params.endIndex, stride)

    def run(x: Tensor) -> Tensor:
        require_rank(x, -axis)
        return x.movedim(axis, -1)[..., part].movedim(-1, axis)

    return run


@layer("sliceStatic")
def slice_static(given: Given) -> Run:
    """Of all axes, by indices that are parameters."""
    params = given.params
    compute, begin, end = operation("slice_by_index"), _numbers(params.beginIds), _numbers(params.endIds)
    options = {"stride": _numbers(params.strides) or None, **_masks(params)}
    return lambda x: compute(x, begin=begin, end=end, **options)


def _numbers(values: Any) -> list[int]:
    return [int(value) for value in values]


def _masks(params: Any) -> dict[str, list[bool] | None]:
    """Options of the operation; absent masks are false."""
    names = {"begin_mask": "beginMasks", "end_mask": "endMasks", "squeeze_mask": "squeezeMasks"}
    return {name: list(getattr(params, field)) or None for name, field in names.items()}


@layer("sliceDynamic")
def slice_dynamic(given: Given) -> Run:
    """Of all axes, by indices that are inputs or parameters."""
    params = given.params
    compute = operation("slice_by_index")
    stored = {"end": _numbers(params.endIds), "stride": _numbers(params.strides) or None, **_masks(params)}
    order = ("begin", "end", "stride", "begin_mask", "end_mask", "squeeze_mask")

    def run(x: Tensor, begin: Tensor, *others: Tensor) -> Tensor:
        given_now = dict(zip(order, map(integers, (begin, *others)), strict=False))
        for name in order[3:]:
            if name in given_now:
                given_now[name] = [value != 0 for value in given_now[name]]
        result: Tensor = compute(x, **{**stored, **given_now})
        return result

    return run


@layer("sliceBySize")
def slice_by_size(given: Given) -> Run:
    """Of one axis, from an index that is an input."""
    size, axis = given.params.size, given.params.axis

    def run(x: Tensor, begin: Tensor) -> Tensor:
        place = axis_of(axis, x.dim())
        first = integer(begin)
        first += x.shape[place] if first < 0 else 0
        return x.narrow(place, first, x.shape[place] - first if size == -1 else size)

    return run


@layer("slidingWindows")
def sliding_windows(given: Given) -> Run:
    """All windows along an axis."""
    axis, size, step = given.params.axis, int(given.params.windowSize), int(given.params.step) or 1

    compute = operation("sliding_windows")
    return lambda x: compute(x, axis=axis_of(axis, x.dim()), size=size, stride=step)


@layer("crop")
def crop(given: Given) -> Run:
    """Of height and width, by amounts, or to the size of the second input."""
    params = given.params
    if given.inputs == 2:
        down, across = pair(params.offset, 0)

        def run_like(x: Tensor, like: Tensor) -> Tensor:
            require_rank(x, 3)
            height, width = like.shape[-2:]
            if down + height > x.shape[-2] or across + width > x.shape[-1]:
                raise ValueError(
                    f"{height} x {width} elements from {down}, {across} on are not within shape {tuple(x.shape)}"
                )
            return x[..., down : down + height, across : across + width]

        return run_like
    top, bottom, left, right = border(params.cropAmounts)

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]

    return run


@layer("padding")
def padding(given: Given) -> Run:
    """Of height and width, with a number, reflected, or repeated."""
    params = given.params
    kind = params.WhichOneof("PaddingType") or "constant"
    compute = operation("pad")
    options: dict[str, Any] = {"pad": border(params.paddingAmounts)}
    if kind == "constant":
        options |= {"mode": "constant", "constant_val": params.constant.value}
    else:
        options["mode"] = "reflect" if kind == "reflection" else "replicate"

    def run(x: Tensor) -> Tensor:
        require_rank(x, 2)
        result: Tensor = compute(x, **options)
        return result

    return run


@layer("constantPad")
def constant_pad(given: Given) -> Run:
    """Of all axes, with a number, by amounts or to given sizes, which are parameters or the second input."""
    params = given.params
    value, stored, to_sizes = params.value, _numbers(params.padAmounts), params.padToGivenOutputSizeMode

    def run(x: Tensor, amounts: Tensor | None = None) -> Tensor:
        pads = stored if amounts is None else integers(amounts)
        if len(pads) != 2 * x.dim():
            raise ValueError(f"{len(pads)} amounts for a tensor of rank {x.dim()}")
        if to_sizes:
            pads = [max(0, pad - x.shape[index // 2]) if pad else 0 for index, pad in enumerate(pads)]
        limited(pads)
        limited([size + pads[2 * axis] + pads[2 * axis + 1] for axis, size in enumerate(x.shape)])
        backwards = [pad for axis in reversed(range(x.dim())) for pad in pads[2 * axis : 2 * axis + 2]]
        return torch.nn.functional.pad(x, backwards, value=value)

    return run


@layer("split")
def split(given: Given) -> Run:
    """The channels, into equal parts."""
    count = int(given.params.nOutputs) or given.outputs

    def run(x: Tensor) -> tuple[Tensor, ...]:
        require_rank(x, 3)
        if x.shape[CHANNEL] % count:
            raise ValueError(f"{x.shape[CHANNEL]} channels cannot be split into {count} equal parts")
        return x.tensor_split(count, CHANNEL)

    return run


@layer("splitND")
def split_nd(given: Given) -> Run:
    """Any axis, into parts of given sizes, or equal ones; the first are larger by one where it cannot be divided."""
    axis, sizes = given.params.axis, _numbers(given.params.splitSizes)
    if sizes:
        return lambda x: x.split(sizes, axis)
    count = int(given.params.numSplits) or given.outputs
    return lambda x: x.tensor_split(count, axis)
