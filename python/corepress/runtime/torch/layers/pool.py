"""Pooling."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .conv import padding_3d, padding_of, pair
from .registry import Given, Run, layer, operation
from .shapes import batched, require_rank

_KERNEL = 3
_KINDS = ("max_pool", "avg_pool", "l2_pool")


def _kind(number: int, among: int) -> str:
    if not 0 <= number < among:
        raise ValueError(f"there is no pooling of type {number}")
    return _KINDS[number]


def _global(kind: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    if kind == "max_pool":
        return x.amax(axes, keepdim=True)
    if kind == "avg_pool":
        return x.mean(axes, keepdim=True)
    return torch.sqrt((x * x).sum(axes, keepdim=True))


@layer("pooling")
def pooling(given: Given) -> Run:
    """Of the last two axes. A window that would lie wholly in the padding after the last element is left out."""
    params = given.params
    kind = _kind(params.type, 3)
    if params.globalPooling:
        return lambda x: _global(kind, x, (-2, -1))
    padding_type = params.WhichOneof("PoolingPaddingType")
    options: dict[str, Any] = {
        "kernel_sizes": pair(params.kernelSize, _KERNEL),
        "strides": pair(params.stride, 1),
    }
    if padding_type == "includeLastPixel":
        height, width = pair(params.includeLastPixel.paddingAmounts, 0)
        options |= {"pad_type": "custom", "pad": [height, height, width, width], "ceil_mode": True}
    else:
        options |= padding_of(params, padding_type)
    if kind == "avg_pool":
        options["exclude_padding_from_average"] = params.avgPoolExcludePadding
    compute = operation(kind)
    return lambda x: batched(lambda each: compute(each, **options), x)


@layer("pooling3d")
def pooling3d(given: Given) -> Run:
    """Of the last three axes of a tensor of rank 5."""
    params = given.params
    kind = _kind(params.type, 2)
    axes = ("Depth", "Height", "Width")
    options: dict[str, Any] = {
        "kernel_sizes": [getattr(params, f"kernel{axis}") or _KERNEL for axis in axes],
        "strides": [getattr(params, f"stride{axis}") or 1 for axis in axes],
        **padding_3d(params),
    }
    if kind == "avg_pool":
        options["exclude_padding_from_average"] = params.countExcludePadding
    compute = operation(kind)
    return lambda x: compute(x, **options)


@layer("globalPooling3d")
def global_pooling3d(given: Given) -> Run:
    """Of the last three axes."""
    kind = _kind(given.params.type, 2)

    def run(x: Tensor) -> Tensor:
        require_rank(x, 5)
        return _global(kind, x, (-3, -2, -1))

    return run
