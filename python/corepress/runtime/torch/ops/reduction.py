"""Reductions: over the axes that are given, or over all of them where none are.

Integers are summed and multiplied modulo 2**32 and divided as integers, since the results have their type.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import implements

Axes = list[int] | None


@implements("reduce_argmax", exact=True)
def reduce_argmax(x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the largest element; the first one of several. (iOS 17 added ``output_dtype``.)"""
    return torch.argmax(x, axis, keep_dims)


@implements("reduce_argmin", exact=True)
def reduce_argmin(x: Tensor, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    """The index of the smallest element; the first one of several. (iOS 17 added ``output_dtype``.)"""
    return torch.argmin(x, axis, keep_dims)


@implements("reduce_l1_norm")
def reduce_l1_norm(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(torch.abs(x), axes, keep_dims)


@implements("reduce_l2_norm")
def reduce_l2_norm(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    """The square root of the sum of squares; unlike that formula, its gradient at zero is zero."""
    norm: Tensor = torch.linalg.vector_norm(_floating(x), 2, axes, keep_dims)
    return norm


@implements("reduce_log_sum")
def reduce_log_sum(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.log(torch.sum(x, axes, keep_dims))


@implements("reduce_log_sum_exp")
def reduce_log_sum_exp(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.logsumexp(_floating(x), axes or list(range(x.ndim)), keep_dims)


@implements("reduce_max", exact=True)
def reduce_max(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.amax(x, axes or (), keep_dims)


@implements("reduce_mean")
def reduce_mean(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    if x.is_floating_point():
        return torch.mean(x, axes, keep_dims)
    total = torch.sum(x, axes, keep_dims)
    return torch.div(total, max(x.numel() // max(total.numel(), 1), 1), rounding_mode="trunc")


@implements("reduce_min", exact=True)
def reduce_min(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.amin(x, axes or (), keep_dims)


@implements("reduce_prod")
def reduce_prod(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    rank = x.ndim
    for axis in sorted((axis % rank for axis in axes or range(rank)), reverse=True):
        x = torch.prod(x, axis, keep_dims)
    return x


@implements("reduce_sum")
def reduce_sum(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(x, axes, keep_dims)


@implements("reduce_sum_square")
def reduce_sum_square(x: Tensor, *, axes: Axes = None, keep_dims: bool = False) -> Tensor:
    return torch.sum(x * x, axes, keep_dims)


def _floating(x: Tensor) -> Tensor:
    return x if x.is_floating_point() else x.float()
