"""Reductions to fewer elements."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .registry import Given, Run, layer, operation
from .shapes import axis_of, require_rank

_EPSILON = 1e-6
_OPERATIONS = {
    "reduceL1": "reduce_l1_norm",
    "reduceL2": "reduce_l2_norm",
    "reduceMax": "reduce_max",
    "reduceMin": "reduce_min",
    "reduceSum": "reduce_sum",
    "reduceProd": "reduce_prod",
    "reduceMean": "reduce_mean",
    "reduceLogSum": "reduce_log_sum",
    "reduceSumSquare": "reduce_sum_square",
    "reduceLogSumExp": "reduce_log_sum_exp",
}
_AXES = ((-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,))


@layer(*_OPERATIONS)
def reduction(given: Given) -> Run:
    """As the operation of ML programs."""
    params = given.params
    compute = operation(_OPERATIONS[given.layer_type])
    axes = None if params.reduceAll or not params.axes else [int(axis) for axis in params.axes]
    keep = params.keepDims
    return lambda x: compute(x, axes=axes, keep_dims=keep)


@layer("reduce")
def reduce_axes(given: Given) -> Run:
    """Of channels, height and width, or some of these; the axes remain."""
    params = given.params
    axes, epsilon = _AXES[params.axis], float(params.epsilon or _EPSILON)
    functions: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda x: x.sum(axes, keepdim=True),
        lambda x: x.mean(axes, keepdim=True),
        lambda x: _product(x, axes),
        lambda x: torch.log(x + epsilon).sum(axes, keepdim=True),
        lambda x: (x * x).sum(axes, keepdim=True),
        lambda x: x.abs().sum(axes, keepdim=True),
        lambda x: torch.sqrt((x * x).sum(axes, keepdim=True)),
        lambda x: x.amax(axes, keepdim=True),
        lambda x: x.amin(axes, keepdim=True),
        lambda x: x.argmax(axes[0], keepdim=True),
    )
    if not 0 <= params.mode < len(functions):
        raise ValueError(f"there is no reduction {params.mode}")
    if params.mode == 9 and len(axes) > 1:
        raise ValueError("ARGMAX reduces one axis, not several")
    compute: Callable[[Tensor], Tensor] = functions[int(params.mode)]

    def run(x: Tensor) -> Tensor:
        require_rank(x, -axes[0])
        return compute(x)

    return run


def _product(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


@layer("argMax", "argMin")
def arg_extremum(given: Given) -> Run:
    """The index of the largest or smallest value along an axis, the first of several."""
    axis, keep = given.params.axis, not given.params.removeDim
    compute = operation("reduce_argmax" if given.layer_type == "argMax" else "reduce_argmin")

    def run(x: Tensor) -> Tensor:
        axis_of(axis, x.dim())
        result: Tensor = compute(x, axis=axis, keep_dims=keep)
        return result

    return run
