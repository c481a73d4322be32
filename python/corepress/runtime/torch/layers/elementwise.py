"""Functions of single elements, and of the elements of several tensors, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional

from ..limits import ELEMENT_LIMIT, broadcasting, limit_broadcast
from .registry import Given, Run, layer, operation
from .shapes import CHANNEL, require_rank

_EPSILON = 1e-6
_add, _multiply = broadcasting(torch.add), broadcasting(torch.mul)
_LIKE_OPERATIONS = {
    "ceil": "ceil",
    "floor": "floor",
    "sign": "sign",
    "round": "round",
    "exp2": "exp2",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "atanh": "atanh",
    "erf": "erf",
    "modBroadcastable": "mod",
    "minBroadcastable": "minimum",
    "maxBroadcastable": "maximum",
    "addBroadcastable": "add",
    "powBroadcastable": "pow",
    "divideBroadcastable": "real_div",
    "floorDivBroadcastable": "floor_div",
    "multiplyBroadcastable": "mul",
    "subtractBroadcastable": "sub",
}
_COMPARISONS: dict[str, Callable[[Tensor, Tensor | float], Tensor]] = {
    "equal": torch.eq,
    "notEqual": torch.ne,
    "lessThan": torch.lt,
    "lessEqual": torch.le,
    "greaterThan": torch.gt,
    "greaterEqual": torch.ge,
}
_LOGICAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logicalAnd": torch.logical_and,
    "logicalOr": torch.logical_or,
    "logicalXor": torch.logical_xor,
}


@layer(*_LIKE_OPERATIONS)
def like_operation(given: Given) -> Run:
    """As the operation of ML programs."""
    return operation(_LIKE_OPERATIONS[given.layer_type])


@layer("asinh", "acosh")
def inverse_hyperbolic(given: Given) -> Run:
    """Two functions that ML programs do not have."""
    compute = torch.asinh if given.layer_type == "asinh" else torch.acosh
    return lambda x: compute(x)


@layer("clip")
def clip(given: Given) -> Run:
    """``min(max(x, minVal), maxVal)``."""
    least, most = given.params.minVal, given.params.maxVal
    return lambda x: torch.clamp(torch.clamp(x, min=least), max=most)


@layer("unary")
def unary(given: Given) -> Run:
    """One of eight functions, after scaling and shifting. The logarithm adds an epsilon only if one is given."""
    params = given.params
    alpha, given_epsilon = params.alpha, params.epsilon
    epsilon = given_epsilon or _EPSILON
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        torch.sqrt,
        lambda x: torch.rsqrt(x + epsilon),
        lambda x: torch.reciprocal(x + epsilon),
        lambda x: torch.pow(x, alpha),
        torch.exp,
        lambda x: torch.log(x + given_epsilon),
        torch.abs,
        lambda x: torch.clamp(x, min=alpha),
    )
    if not 0 <= params.type < len(functions):
        raise ValueError(f"there is no unary function {params.type}")
    compute, scale, shift = functions[params.type], params.scale or 1.0, params.shift
    if scale == 1 and shift == 0:
        return lambda x: compute(x)
    return lambda x: compute(x * scale + shift)


@layer(*_COMPARISONS)
def comparison(given: Given) -> Run:
    """Of two tensors, or of one with a number; 1 where it holds."""
    compute, alpha = _COMPARISONS[given.layer_type], given.params.alpha
    if given.inputs == 1:
        return lambda x: compute(x, alpha)
    return broadcasting(compute)


@layer(*_LOGICAL)
def logical(given: Given) -> Run:
    """Of two tensors, whose zeros are false."""
    return broadcasting(_LOGICAL[given.layer_type])


@layer("logicalNot")
def logical_not(given: Given) -> Run:
    """1 where the input is 0."""
    return lambda x: torch.logical_not(x)


@layer("add")
def add(given: Given) -> Run:
    """The sum of all inputs, or of one and a number."""
    if given.inputs == 1:
        alpha = given.params.alpha
        return lambda x: x + alpha
    return lambda *values: reduce(_add, values)


@layer("multiply")
def multiply(given: Given) -> Run:
    """The product of all inputs, or of one and a number."""
    if given.inputs == 1:
        alpha = given.params.alpha
        return lambda x: x * alpha
    return lambda *values: reduce(_multiply, values)


@layer("average")
def average(given: Given) -> Run:
    """The mean of all inputs."""
    return lambda *values: reduce(_add, values) / len(values)


@layer("max", "min")
def extremum(given: Given) -> Run:
    """The largest or smallest of all inputs."""
    compute = broadcasting(torch.maximum if given.layer_type == "max" else torch.minimum)
    return lambda *values: reduce(compute, values)


@layer("dot")
def dot(given: Given) -> Run:
    """Of the channels of two tensors, as they are or normalized."""
    cosine = given.params.cosineSimilarity

    def run(x: Tensor, y: Tensor) -> Tensor:
        require_rank(x, 3)
        if x.numel() * y.numel() > ELEMENT_LIMIT:
            limit_broadcast(x.shape, y.shape)
        if cosine:
            return functional.cosine_similarity(x, y, CHANNEL).unsqueeze(CHANNEL)
        return (x * y).sum(CHANNEL, keepdim=True)

    return run


@layer("copy")
def copy(given: Given) -> Run:
    """The input under another name, which may be one that exists."""
    return lambda x: x
