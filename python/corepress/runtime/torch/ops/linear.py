"""Products of matrices."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..limits import ELEMENT_LIMIT, limit_broadcast, limited
from ..registry import implements
from ._weights import by_outputs


def _in_one_type(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32, or in float64 if both are integers: products of integers run on every device, and are exact."""
    if x.is_floating_point() or y.is_floating_point():
        return x.to(torch.float32), y.to(torch.float32)
    return x.to(torch.float64), y.to(torch.float64)


@implements("linear", stored_weights=True)
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias``; the weight is ``[outputs, inputs]``."""
    if x.numel() * weight.shape[0] > ELEMENT_LIMIT:
        limited((*x.shape[:-1], weight.shape[0]))
    if x.is_floating_point() and weight.is_floating_point():
        return by_outputs(partial(F.linear, x), weight, bias, -1)
    x, weight = _in_one_type(x, weight)
    return F.linear(x, weight, None if bias is None else bias.to(x.dtype))


@implements("matmul")
def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """The flags have no effect on operands of rank 1."""
    if not (x.is_floating_point() and y.is_floating_point()):
        x, y = _in_one_type(x, y)
    if transpose_x and x.dim() > 1:
        x = x.mT
    if transpose_y and y.dim() > 1:
        y = y.mT
    if x.numel() * y.numel() > ELEMENT_LIMIT and x.dim() > 1 and y.dim() > 1:
        limited((*limit_broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1]))
    return torch.matmul(x, y)


@implements("einsum")
def einsum(values: list[Tensor], *, equation: str) -> Tensor:
    """Axes of size 1 are broadcast."""
    equation = equation.replace(" ", "")
    if math.prod(each.numel() for each in values) > ELEMENT_LIMIT:
        _limit_einsum(values, equation)
    return torch.einsum(equation, *values)


def _limit_einsum(values: list[Tensor], equation: str) -> None:
    """Raise ValueError if the result would be too large."""
    inputs, _, output = equation.partition("->")
    sizes: dict[str, int] = {}
    for axes, value in zip(inputs.split(","), values, strict=True):
        for axis, size in zip(axes, value.shape, strict=True):
            sizes[axis] = max(size, sizes.get(axis, 1))
    limited(sizes[axis] for axis in output)
