"""Fake quantization by the native kernels: what they take, and tensors as they take them.

`corepress.reference.fake_quantize` has the formulas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _core

Ends = tuple[int, int]

_OF_THREAD = 1 << 18  # values that are worth a thread


def knows(*tensors: torch.Tensor) -> bool:
    """Return whether the kernels take tensors: float32 in the memory of the CPU, not in a graph that is being made."""
    recorded = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return not recorded and all(
        each.dtype == torch.float32 and each.device.type == "cpu" and type(each) in (torch.Tensor, torch.nn.Parameter)
        for each in tensors
    )


def quantized(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, ch_axis: int, ends: Ends) -> torch.Tensor:
    """Return values that integers express.

    Parameters
    ----------
    x : torch.Tensor
    scale, zero_point : torch.Tensor of float32, shape (channels,) or (1,)
        Zero points are integers.
    ch_axis : int
        Of the channels, which have a scale each; -1: there is one for all.
    ends : tuple of int
        The smallest and the largest integer.
    """
    result, order = _like(x)
    values = x.detach().permute(order).contiguous()
    layout = _layout(values.shape, order, ch_axis)
    _core.fake_quantize(
        _input(values), layout, *_parameters(scale, zero_point), ends, result.permute(order).numpy(), _threads(x)
    )
    return result


def slopes(
    x: torch.Tensor,
    gradient: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    ch_axis: int,
    ends: Ends,
    summed: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradient by the values, which is 0 outside of the range, and two sums for each scale.

    The first is the gradient by the scale, the second the sum of the gradient outside of the range. Without `summed`
    they are anything.

    Parameters
    ----------
    x, scale, zero_point, ch_axis, ends
        As for `quantized`.
    gradient : torch.Tensor
        By the result; of the shape of x.
    summed : bool
    """
    result, order = _like(x)
    values, given = (each.detach().permute(order).contiguous() for each in (x, gradient))
    sums = np.empty((scale.numel(), 2)) if summed else None
    _core.fake_quantize_gradient(
        _input(values),
        _input(given),
        _layout(values.shape, order, ch_axis),
        *_parameters(scale, zero_point),
        ends,
        result.permute(order).numpy(),
        sums,
        _threads(x),
    )
    if sums is None:
        return result, scale, scale
    of_scale, outside = torch.from_numpy(sums).unbind(1)
    return result, of_scale, outside


def _like(x: torch.Tensor) -> tuple[torch.Tensor, list[int]]:
    """Room for results, and the order of its axes in memory: that of x, unless it is strided."""
    result = torch.empty_like(x.detach())
    strides = result.stride()
    order = sorted(range(x.ndim), key=lambda axis: -strides[axis])
    if not result.permute(order).is_contiguous():
        return torch.empty_like(result, memory_format=torch.contiguous_format), list(range(x.ndim))
    return result, order


def _layout(shape: torch.Size, order: list[int], ch_axis: int) -> tuple[int, int, int]:
    if ch_axis == -1:
        return 1, 1, shape.numel()
    axis = order.index(ch_axis)
    return shape[:axis].numel(), shape[axis], shape[axis + 1 :].numel()


def _parameters(scale: torch.Tensor, zero_point: torch.Tensor) -> tuple[Any, Any]:
    return _input(scale.detach().contiguous()), _input(zero_point.detach().to(torch.float32).contiguous())


def _input(tensor: torch.Tensor) -> Any:
    """A tensor's memory, to read. `Tensor.numpy` would fix its size, and FSDP frees it between steps."""
    return np.from_dlpack(tensor)


def _threads(x: torch.Tensor) -> int:
    return max(1, min(torch.get_num_threads(), x.numel() // _OF_THREAD))
