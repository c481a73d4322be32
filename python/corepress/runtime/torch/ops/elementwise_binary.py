"""Elementwise operations on two tensors, which broadcast as NumPy's do.

Division by an integer zero is undefined in Core ML; here the quotient is 0 and the remainder the dividend, as on Arm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..limits import broadcasting
from ..registry import implements


@implements("add")
@broadcasting
def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


@implements("sub")
@broadcasting
def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


@implements("mul")
@broadcasting
def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@implements("real_div")
@broadcasting
def real_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y; the quotient of integers is truncated, since the result has their type."""
    return x / y if x.is_floating_point() or y.is_floating_point() else _divide_integers(x, y, "trunc")


@implements("floor_div")
@broadcasting
def floor_div(x: Tensor, y: Tensor) -> Tensor:
    """x / y, rounded towards negative infinity."""
    if x.is_floating_point() or y.is_floating_point():
        return torch.floor_divide(x, y)
    return _divide_integers(x, y, "floor")


@implements("mod")
@broadcasting
def mod(x: Tensor, y: Tensor) -> Tensor:
    """The remainder of `floor_div`: it has the sign of y."""
    if x.is_floating_point() or y.is_floating_point():
        return torch.remainder(x, y)
    return torch.where(y == 0, x, torch.remainder(x.long(), _nonzero(y)))


def _divide_integers(x: Tensor, y: Tensor, rounding: str) -> Tensor:
    """The quotient of integers, in 64 bits: the smallest 32-bit integer divided by -1 is not a 32-bit integer."""
    return torch.where(y == 0, 0, torch.div(x.long(), _nonzero(y), rounding_mode=rounding))


def _nonzero(divisor: Tensor) -> Tensor:
    return torch.where(divisor == 0, 1, divisor.long())


@implements("pow")
@broadcasting
def power(x: Tensor, y: Tensor) -> Tensor:
    """x to the power of y; one exponent for all elements allows for faster and more precise ways, such as a square."""
    if y.ndim == 0 and y.device.type == "cpu" and not y.requires_grad and not torch.compiler.is_compiling():
        exponent = y.item()
        if exponent >= 0 or x.is_floating_point():
            return torch.pow(x, exponent)
    return torch.pow(x, y)


@implements("maximum", exact=True)
@broadcasting
def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


@implements("minimum", exact=True)
@broadcasting
def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


@implements("equal", exact=True)
@broadcasting
def equal(x: Tensor, y: Tensor) -> Tensor:
    return x == y


@implements("not_equal", exact=True)
@broadcasting
def not_equal(x: Tensor, y: Tensor) -> Tensor:
    return x != y


@implements("greater", exact=True)
@broadcasting
def greater(x: Tensor, y: Tensor) -> Tensor:
    return x > y


@implements("greater_equal", exact=True)
@broadcasting
def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    return x >= y


@implements("less", exact=True)
@broadcasting
def less(x: Tensor, y: Tensor) -> Tensor:
    return x < y


@implements("less_equal", exact=True)
@broadcasting
def less_equal(x: Tensor, y: Tensor) -> Tensor:
    return x <= y


@implements("logical_and", exact=True)
@broadcasting
def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_and(x, y)


@implements("logical_or", exact=True)
@broadcasting
def logical_or(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_or(x, y)


@implements("logical_xor", exact=True)
@broadcasting
def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_xor(x, y)
