"""Elementwise operations on one tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import implements

_FLOATS = {"fp16", "fp32", "fp64"}
# Their carriers, and the limits for floats: the largest float32 that the type holds, not its largest value.
_INTEGERS = {
    "int8": (torch.int8, -(2**7), 2**7 - 1),
    "uint8": (torch.uint8, 0, 2**8 - 1),
    "int16": (torch.int16, -(2**15), 2**15 - 1),
    "uint16": (torch.int32, 0, 2**16 - 1),
    "int32": (torch.int32, -(2**31), 2**31 - 2**7),
    "uint32": (torch.int64, 0, 2**32 - 2**8),
    "int64": (torch.int64, -(2**63), 2**63 - 2**39),
    "uint64": (torch.int64, 0, 2**63 - 2**39),
}
_LOW_BITS = {"uint16": 2**16 - 1, "uint32": 2**32 - 1}


@implements("abs", exact=True)
def absolute(x: Tensor) -> Tensor:
    return torch.abs(x)


@implements("acos")
def acos(x: Tensor) -> Tensor:
    return torch.acos(x)


@implements("asin")
def asin(x: Tensor) -> Tensor:
    return torch.asin(x)


@implements("atan")
def atan(x: Tensor) -> Tensor:
    return torch.atan(x)


@implements("atanh")
def atanh(x: Tensor) -> Tensor:
    return torch.atanh(x)


@implements("cast")
def cast(x: Tensor, *, dtype: str) -> Tensor:
    """x in another type.

    What Core ML leaves undefined has one answer here: a float that an integer type cannot hold becomes the nearest one
    that it can hold, and NaN becomes 0, as on Arm; an integer that a smaller type cannot hold keeps its low bits.
    """
    if dtype in _FLOATS:
        return x if x.dtype is torch.float32 else x.float()
    if dtype == "bool":
        return x != 0
    if dtype not in _INTEGERS:
        raise ValueError(f"dtype is a type that tensors have, {dtype}")
    carrier, low, high = _INTEGERS[dtype]
    if x.is_floating_point():
        return torch.nan_to_num(x).clamp(low, high).to(carrier)
    x = x.to(carrier)
    return x & _LOW_BITS[dtype] if dtype in _LOW_BITS else x


@implements("ceil", exact=True)
def ceil(x: Tensor) -> Tensor:
    return torch.ceil(x)


@implements("clip", exact=True)
def clip(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """x limited to alpha .. beta; beta where alpha is larger."""
    return torch.clamp(x, alpha, beta)


@implements("cos")
def cos(x: Tensor) -> Tensor:
    return torch.cos(x)


@implements("cosh")
def cosh(x: Tensor) -> Tensor:
    return torch.cosh(x)


@implements("erf")
def erf(x: Tensor) -> Tensor:
    return torch.erf(x)


@implements("exp")
def exp(x: Tensor) -> Tensor:
    return torch.exp(x)


@implements("exp2")
def exp2(x: Tensor) -> Tensor:
    return torch.exp2(x)


@implements("floor", exact=True)
def floor(x: Tensor) -> Tensor:
    return torch.floor(x)


@implements("inverse")
def inverse(x: Tensor, *, epsilon: float = 1e-4) -> Tensor:
    """1 / (x + epsilon)."""
    return torch.reciprocal(x + epsilon if epsilon else x)


@implements("log")
def log(x: Tensor, *, epsilon: float = 1e-45) -> Tensor:
    """log(x + epsilon): with the default log(0) is -103.28 in float32; in float16, where it is 0, negative infinity."""
    return torch.log(x + epsilon if epsilon else x)


@implements("logical_not", exact=True)
def logical_not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


@implements("round", exact=True)
def rounded(x: Tensor) -> Tensor:
    """The nearest integer; the even one of two that are equally near."""
    return torch.round(x)


@implements("rsqrt")
def rsqrt(x: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    """1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon if epsilon else x)


@implements("sign", exact=True)
def sign(x: Tensor) -> Tensor:
    return torch.sign(x)


@implements("sin")
def sin(x: Tensor) -> Tensor:
    return torch.sin(x)


@implements("sinh")
def sinh(x: Tensor) -> Tensor:
    return torch.sinh(x)


@implements("sqrt")
def sqrt(x: Tensor) -> Tensor:
    return torch.sqrt(x)


@implements("square")
def square(x: Tensor) -> Tensor:
    return x * x


@implements("tan")
def tan(x: Tensor) -> Tensor:
    return torch.tan(x)


@implements("tanh")
def tanh(x: Tensor) -> Tensor:
    return torch.tanh(x)


@implements("threshold", exact=True)
def threshold(x: Tensor, *, alpha: float) -> Tensor:
    """The larger of x and alpha."""
    return torch.clamp(x, min=alpha)
