"""Normalization, and scales and biases for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional

from .registry import Given, Run, layer, operation
from .shapes import CHANNEL, batched, limited, require_rank

_EPSILON = 1e-6
_BATCHNORM_EPSILON = 1e-5


@layer("batchnorm")
def batchnorm(given: Given) -> Run:
    """Along the channels, by stored statistics, by those of each sample, or by those of the whole batch."""
    params = given.params
    epsilon = params.epsilon or _BATCHNORM_EPSILON
    if not params.computeMeanVar:
        compute = operation("batch_norm")
        return lambda x, *, mean, variance, gamma=None, beta=None: batched(
            lambda each: compute(each, mean, variance, gamma, beta, epsilon=epsilon), x
        )
    whole_batch = not params.instanceNormalization

    def run(
        x: Tensor,
        *,
        gamma: Tensor | None = None,
        beta: Tensor | None = None,
        mean: Tensor | None = None,
        variance: Tensor | None = None,
    ) -> Tensor:
        require_rank(x, 3)
        axes = [axis for axis in range(x.dim()) if axis != x.dim() + CHANNEL] if whole_batch else [-2, -1]
        spread, center = torch.var_mean(x, axes, correction=0, keepdim=True)
        y = (x - center) * torch.rsqrt(spread + epsilon)
        y = y if gamma is None else y * gamma[:, None, None]
        return y if beta is None else y + beta[:, None, None]

    return run


@layer("mvn")
def mean_variance(given: Given) -> Run:
    """Within each channel, or across the channels too."""
    params = given.params
    axes = [-3, -2, -1] if params.acrossChannels else [-2, -1]
    epsilon = (params.epsilon or _EPSILON) if params.normalizeVariance else None

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        if epsilon is None:
            return x - x.mean(axes, keepdim=True)
        spread, center = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - center) * torch.rsqrt(spread + epsilon)

    return run


@layer("l2normalize")
def l2_normalize(given: Given) -> Run:
    """By the length of the vector of the last three axes."""
    epsilon = given.params.epsilon or _EPSILON

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        return x * torch.rsqrt((x * x).sum((-3, -2, -1), keepdim=True) + epsilon)

    return run


@layer("lrn")
def local_response(given: Given) -> Run:
    """By the values of neighboring channels."""
    params = given.params
    size, alpha, beta, k = int(params.localSize), params.alpha, params.beta, params.k or 1.0
    if size < 1:
        raise ValueError(f"localSize must be 1 at least, not {size}")

    def normalized(x: Tensor) -> Tensor:
        limited((x.shape[0], x.shape[1] + size, *x.shape[2:]))
        return functional.local_response_norm(x, size, alpha, beta, k)

    return lambda x: batched(normalized, x)


@layer("layerNormalization")
def layer_normalization(given: Given) -> Run:
    """Along the last axes."""
    shape, epsilon = [int(size) for size in given.params.normalizedShape], given.params.eps
    if not shape:
        raise ValueError("it has no normalizedShape")

    def run(x: Tensor, *, gamma: Tensor | None = None, beta: Tensor | None = None) -> Tensor:
        gamma, beta = (None if each is None else each.reshape(shape) for each in (gamma, beta))
        return functional.layer_norm(x, shape, gamma, beta, epsilon)

    return run


def _for_channels(shape: Sequence[int]) -> list[int]:
    """The shape of a scale or a bias that can be broadcast to the last three axes."""
    sizes = [int(size) for size in shape]
    if len(sizes) not in (1, 3):
        raise ValueError(f"the shape of scales and biases must be [1], [C], [1, H, W] or [C, H, W], not {sizes}")
    return [] if prod(sizes) == 1 else [*sizes, 1, 1] if len(sizes) == 1 else sizes


@layer("scale")
def scale(given: Given) -> Run:
    """By factors for each channel or element, with an optional bias."""
    params = given.params
    scale_shape, bias_shape = _for_channels(params.shapeScale), _for_channels(params.shapeBias or [1])

    def run(x: Tensor, *, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        y = x * scale.reshape(scale_shape)
        return y if bias is None else y + bias.reshape(bias_shape)

    return run


@layer("bias")
def bias(given: Given) -> Run:
    """A bias for each channel or element."""
    shape = _for_channels(given.params.shape)
    return lambda x, *, bias: x + bias.reshape(shape)
