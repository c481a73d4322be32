"""Tensors that are stored, filled, counted or drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .registry import Given, Run, layer
from .shapes import ELEMENT_LIMIT, integers, limited

_EPSILON = 1e-10


@layer("loadConstant")
def load_constant(given: Given) -> Run:
    """A stored tensor of rank 5."""
    shape = (1, 1, *map(int, given.params.shape))
    return lambda anchor, *, data: data.reshape(shape)


@layer("loadConstantND")
def load_constant_nd(given: Given) -> Run:
    """A stored tensor of any rank."""
    shape = tuple(map(int, given.params.shape))
    return lambda anchor, *, data: data.reshape(shape)


def _by_shape(given: Given, make: Callable[[Tensor, Sequence[int]], Tensor], stored: Sequence[int]) -> Run:
    """A tensor of the shape of the input, of a stored shape, or of the shape that the input holds."""
    if given.layer_type.endswith("Like"):
        return lambda x: make(x, x.shape)
    if given.layer_type.endswith("Static"):
        target = limited(stored)
        return lambda anchor: make(anchor, target)
    return lambda shape: make(shape, limited(integers(shape)))


@layer("fillLike", "fillStatic", "fillDynamic")
def fill(given: Given) -> Run:
    """With one number."""
    value = given.params.value
    target = getattr(given.params, "targetShape", ())
    return _by_shape(given, lambda anchor, shape: anchor.new_full(tuple(shape), value), target)


@layer("rangeStatic", "rangeDynamic")
def number_range(given: Given) -> Run:
    """Numbers at equal distances; what is not an input is a parameter."""
    params = given.params
    first, step = params.startValue, params.stepSizeValue
    if given.layer_type == "rangeStatic":
        last = params.endValue
        return lambda anchor: _range(anchor, last, first, step)

    def run(end: Tensor, start: Tensor | None = None, distance: Tensor | None = None) -> Tensor:
        begin = first if start is None else _number(start)
        return _range(end, _number(end), begin, step if distance is None else _number(distance))

    return run


def _number(x: Tensor) -> float:
    if x.numel() != 1:
        raise ValueError(f"bounds of ranges must be numbers, not tensors of shape {tuple(x.shape)}")
    return float(x)


def _range(anchor: Tensor, end: float, start: float, step: float) -> Tensor:
    if step == 0 or not abs(end - start) / abs(step) <= ELEMENT_LIMIT:
        raise ValueError(f"a range from {start} to {end} by steps of {step} has no or too many numbers")
    if (end - start) * step <= 0:
        return anchor.new_empty(0)
    return torch.arange(start, end, step, dtype=torch.float32, device=anchor.device)


def _generator(seed: int, device: torch.device) -> torch.Generator | None:
    """A generator for a seed that is given; None for torch's own, which a negative seed means."""
    return None if seed < 0 else torch.Generator(device).manual_seed(seed)


@layer("randomNormalLike", "randomNormalStatic", "randomNormalDynamic")
def random_normal(given: Given) -> Run:
    """From a normal distribution."""
    seed, mean, deviation = given.params.seed, float(given.params.mean), float(given.params.stdDev)

    def make(anchor: Tensor, shape: Sequence[int]) -> Tensor:
        drawn = torch.randn(tuple(shape), generator=_generator(seed, anchor.device), device=anchor.device)
        return drawn * deviation + mean

    return _by_shape(given, make, given.params.outputShape)


@layer("randomUniformLike", "randomUniformStatic", "randomUniformDynamic")
def random_uniform(given: Given) -> Run:
    """From a uniform distribution."""
    seed, least, most = given.params.seed, float(given.params.minVal), float(given.params.maxVal)

    def make(anchor: Tensor, shape: Sequence[int]) -> Tensor:
        drawn = torch.rand(tuple(shape), generator=_generator(seed, anchor.device), device=anchor.device)
        return drawn * (most - least) + least

    return _by_shape(given, make, given.params.outputShape)


@layer("randomBernoulliLike", "randomBernoulliStatic", "randomBernoulliDynamic")
def random_bernoulli(given: Given) -> Run:
    """1 with a given probability, else 0."""
    seed, probability = given.params.seed, float(given.params.prob)

    def make(anchor: Tensor, shape: Sequence[int]) -> Tensor:
        drawn = torch.rand(tuple(shape), generator=_generator(seed, anchor.device), device=anchor.device)
        return drawn < probability

    return _by_shape(given, make, given.params.outputShape)


@layer("categoricalDistribution")
def categorical(given: Given) -> Run:
    """Classes, drawn by their probabilities or logits along the last axis."""
    params: Any = given.params
    seed, count, is_logits = params.seed, int(params.numSamples), params.isLogits
    epsilon, temperature = params.eps or _EPSILON, params.temperature or 1.0

    def run(x: Tensor) -> Tensor:
        limited((*x.shape[:-1], count))
        logits = x if is_logits else torch.log(x + epsilon)
        weights = torch.softmax(logits / temperature, -1).reshape(-1, x.shape[-1])
        drawn = torch.multinomial(weights, count, replacement=True, generator=_generator(seed, x.device))
        return drawn.reshape(*x.shape[:-1], count)

    return run
