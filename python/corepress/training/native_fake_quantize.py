"""Fake quantization by the native kernels: what they take, and tensors as they take them.

`corepress.reference.fake_quantize` has the formulas.
"""

from __future__ import annotations

from math import prod
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


class Steps:
    """What values are rounded to, as the kernels take it: copies, which nothing changes before the backward pass.

    Parameters
    ----------
    scale, zero_point : torch.Tensor of numbers, shape (channels,) or (1,)
    ch_axis : int
        Of the channels, which have a scale each; -1: there is one for all.
    ends : tuple of int
        The smallest and the largest integer; zero points are rounded to these and those between.
    """

    def __init__(self, scale: torch.Tensor, zero_point: torch.Tensor, ch_axis: int, ends: Ends) -> None:
        self.scale = np.array(_input(scale.detach()), np.float32)
        self.zero_point = np.clip(np.rint(np.array(_input(zero_point.detach()), np.float32)), *ends)
        self.ch_axis = ch_axis
        self.ends = ends

    def quantized(self, x: torch.Tensor) -> torch.Tensor:
        """Return values that integers express."""
        result, order = _like(x)
        values = _input(_in_order(x, order))
        found = _in_order(result, order).numpy()
        _core.fake_quantize(
            values, self._layout(values.shape, order), self.scale, self.zero_point, self.ends, found, _threads(x)
        )
        return result

    def slopes(
        self, x: torch.Tensor, gradient: torch.Tensor, factor: float | None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Return the gradients by values, scale and zero point.

        Parameters
        ----------
        x : torch.Tensor
        gradient : torch.Tensor
            By the result; of the shape of x.
        factor : float, optional
            What the gradients by scale and zero point are multiplied by; None: they are not needed.
        """
        result, order = _like(x)
        values, given = (_input(_in_order(each, order)) for each in (x, gradient))
        sums = None if factor is None else np.empty((self.scale.size, 2))
        found = _in_order(result, order).numpy()
        layout = self._layout(values.shape, order)
        _core.fake_quantize_gradient(
            values, given, layout, self.scale, self.zero_point, self.ends, found, sums, _threads(x)
        )
        if sums is None or factor is None:
            return result, None, None
        of_scale, of_zero_point = sums[:, 0] * factor, sums[:, 1] * self.scale * -factor
        as_tensor = torch.from_numpy
        return result, as_tensor(of_scale.astype(np.float32)), as_tensor(of_zero_point.astype(np.float32))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scale and zero point."""
        return torch.from_numpy(self.scale), torch.from_numpy(self.zero_point)

    def _layout(self, shape: tuple[int, ...], order: list[int] | None) -> tuple[int, int, int]:
        if self.ch_axis == -1:
            return 1, 1, prod(shape)
        axis = self.ch_axis if order is None else order.index(self.ch_axis)
        return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def _like(x: torch.Tensor) -> tuple[torch.Tensor, list[int] | None]:
    """Room for results, and the order of its axes in memory unless it is their own: that of x, or of no stride."""
    result = torch.empty_like(x.detach())
    if result.is_contiguous():
        return result, None
    strides = result.stride()
    order = sorted(range(x.ndim), key=lambda axis: -strides[axis])
    if result.permute(order).is_contiguous():
        return result, order
    return torch.empty_like(result, memory_format=torch.contiguous_format), None


def _in_order(tensor: torch.Tensor, order: list[int] | None) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor if order is None else tensor.permute(order)).contiguous()


def _input(tensor: torch.Tensor) -> Any:
    """A tensor's memory, to read. `Tensor.numpy` would fix its size, and FSDP frees it between steps."""
    return np.from_dlpack(tensor)


def _threads(x: torch.Tensor) -> int:
    return max(1, min(torch.get_num_threads(), x.numel() // _OF_THREAD))
