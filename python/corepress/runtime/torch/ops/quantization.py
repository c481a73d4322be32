"""Quantization of values that a program computes."""

from __future__ import annotations

import torch
from torch import Tensor

from ....coreml.format.versions import IOS17
from ..registry import implements

_TYPES = {"int8": torch.int8, "uint8": torch.uint8}


def _along(parameter: Tensor, axis: int | None, rank: int) -> Tensor:
    """A scale or zero point, as it is broadcast: a vector runs along the axis."""
    if parameter.dim() == 0:
        return parameter
    if axis is None:
        if parameter.numel() != 1:
            raise ValueError(f"axis must be given with a vector of {parameter.numel()} values, got none")
        return parameter.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return parameter.reshape(shape)


@implements("quantize", since=IOS17)
def quantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int | None = None, output_dtype: str
) -> Tensor:
    """``round(input / scale) + zero_point``; halves are rounded to even, values out of range saturate."""
    if output_dtype not in _TYPES:
        raise ValueError(f"output_dtype must be int8 or uint8, got {output_dtype!r}")
    dtype = _TYPES[output_dtype]
    levels = torch.round(input / _along(scale, axis, input.dim()))
    if zero_point is not None:
        levels = levels + _along(zero_point, axis, input.dim())
    limits = torch.iinfo(dtype)
    return levels.clamp(limits.min, limits.max).to(dtype)


@implements("dequantize", since=IOS17)
def dequantize(input: Tensor, scale: Tensor, zero_point: Tensor | None = None, *, axis: int | None = None) -> Tensor:
    """``(input - zero_point) * scale``."""
    levels = input.to(scale.dtype)
    if zero_point is not None:
        levels = levels - _along(zero_point, axis, input.dim())
    return levels * _along(scale, axis, input.dim())
