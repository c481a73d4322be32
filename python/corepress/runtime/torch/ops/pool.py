"""Pooling over windows of the spatial axes.

The number of windows with ``ceil_mode`` is that of PyTorch: the last one does not start in the padding after an axis.
Padded cells count in averages unless they are excluded; what ``ceil_mode`` adds never counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import implements
from .windows import last_axis_first, limit_padded, pads_of

_MAXIMA: dict[int, Callable[..., Any]] = {3: torch.max_pool1d, 4: torch.max_pool2d, 5: torch.max_pool3d}
_MEANS: dict[int, Callable[..., Any]] = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


def _pads(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pad_type: str,
    pad: Sequence[int] | None,
    ceil_mode: bool,
) -> tuple[list[int], list[int], bool]:
    """The padding before and after the axes; whether it is symmetric and small enough for PyTorch's kernels."""
    if x.dim() not in _MAXIMA:
        raise ValueError(f"x must have rank 3, 4 or 5, got {x.dim()}")
    if pad_type == "valid":
        none = [0] * len(kernel)
        return none, none, True
    before, after = pads_of(pad_type, pad, x.shape[2:], kernel, strides)
    limit_padded(x, x.shape[1], before, after)
    if ceil_mode and before != after:
        raise ValueError(f"pad must be symmetric with ceil_mode, got {before} before and {after} after the axes")
    usual = before == after and all(2 * each <= size for each, size in zip(before, kernel, strict=True))
    return before, after, usual


def _without_last_in_padding(
    x: Tensor, result: Tensor, kernel: Sequence[int], strides: Sequence[int], before: Sequence[int], ceil_mode: bool
) -> Tensor:
    """The last windows go that start in the padding after an axis; ``ceil_mode`` makes them of axes padded by hand."""
    if ceil_mode:
        for axis, (size, stride, pad) in enumerate(zip(kernel, strides, before, strict=True), start=2):
            count = -((size - x.shape[axis] - 2 * pad) // stride) + 1
            if (count - 1) * stride >= x.shape[axis] + pad:
                result = result.narrow(axis, 0, count - 1)
    return result


@implements("max_pool", exact=True)
def max_pool(
    x: Tensor,
    *,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str,
    pad: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """Padding is minus infinity, which a window without any element returns."""
    strides = strides or [1] * len(kernel_sizes)
    before, after, usual = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    function = _MAXIMA[x.dim()]
    if usual:
        result: Tensor = function(x, kernel_sizes, strides, before, 1, ceil_mode)
        return result
    padded = F.pad(x, last_axis_first(before, after), value=float("-inf"))
    result = function(padded, kernel_sizes, strides, 0, 1, ceil_mode)
    return _without_last_in_padding(x, result, kernel_sizes, strides, before, ceil_mode)


@implements("avg_pool")
def avg_pool(
    x: Tensor,
    *,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str,
    pad: Sequence[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """A window without any element that counts gives zero."""
    strides = strides or [1] * len(kernel_sizes)
    before, after, usual = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    function = _MEANS[x.dim()]
    if usual:
        counted = not exclude_padding_from_average
        result: Tensor = function(x, kernel_sizes, strides, before, ceil_mode, counted)
        return result
    pads = last_axis_first(before, after)
    result = function(F.pad(x, pads), kernel_sizes, strides, ceil_mode=ceil_mode)
    if exclude_padding_from_average:
        inside = function(F.pad(x.new_ones(1, 1, *x.shape[2:]), pads), kernel_sizes, strides, ceil_mode=ceil_mode)
        result = result / inside.masked_fill(inside == 0, 1)
    return _without_last_in_padding(x, result, kernel_sizes, strides, before, ceil_mode)


@implements("l2_pool")
def l2_pool(
    x: Tensor,
    *,
    kernel_sizes: Sequence[int],
    strides: Sequence[int] | None = None,
    pad_type: str,
    pad: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The square root of the sum, not of the mean, of the squares in a window."""
    if x.dim() not in (3, 4):
        raise ValueError(f"x must have rank 3 or 4, got {x.dim()}")
    strides = strides or [1] * len(kernel_sizes)
    before, after, usual = _pads(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    squares = x * x
    padding = before if usual else [0] * len(before)
    if not usual:
        squares = F.pad(squares, last_axis_first(before, after))
    one_axis = x.dim() == 3
    lead = [1] if one_axis else []
    sums = F.avg_pool2d(
        squares.unsqueeze(2) if one_axis else squares,
        [*lead, *kernel_sizes],
        [*lead, *strides],
        [0] * len(lead) + padding,
        ceil_mode=ceil_mode,
        divisor_override=1,
    )
    result = (sums.squeeze(2) if one_axis else sums).sqrt()
    return _without_last_in_padding(x, result, kernel_sizes, strides, before, ceil_mode)
