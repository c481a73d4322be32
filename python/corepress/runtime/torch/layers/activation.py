"""Activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .registry import Given, Run, layer, operation
from .shapes import CHANNEL, require_rank

_PLAIN = {"ReLU": "relu", "tanh": "tanh", "sigmoid": "sigmoid", "softsign": "softsign", "softplus": "softplus"}
_WITH_ALPHA = {"leakyReLU": "leaky_relu", "thresholdedReLU": "thresholded_relu", "ELU": "elu"}
_WITH_BOTH = {"linear": "linear_activation", "scaledTanh": "scaled_tanh", "sigmoidHard": "sigmoid_hard"}
_GELU_MODES = ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")


@layer("activation")
def activation(given: Given) -> Run:
    """One of thirteen functions; those with weights have them along the channels."""
    kind = given.params.WhichOneof("NonlinearityType")
    if kind == "PReLU":
        return _prelu
    if kind == "parametricSoftplus":
        return _parametric_softplus
    return function_of(given.params)


def function_of(params: Any) -> Run:
    """The function of an ``ActivationParams`` without weights."""
    kind = params.WhichOneof("NonlinearityType")
    if kind in _PLAIN:
        return operation(_PLAIN[kind])
    values: Any = getattr(params, kind or "", None)
    if kind in _WITH_ALPHA:
        compute, alpha = operation(_WITH_ALPHA[kind]), values.alpha
        return lambda x: compute(x, alpha=alpha)
    if kind in _WITH_BOTH:
        compute, alpha, beta = operation(_WITH_BOTH[kind]), values.alpha, values.beta
        return lambda x: compute(x, alpha=alpha, beta=beta)
    raise ValueError("it has no activation" if kind is None else f"activation {kind} needs weights")


def _by_channel(x: Tensor, weight: Tensor) -> Tensor:
    """A weight of one value, or one for each channel, that can be broadcast."""
    if weight.numel() == 1:
        return weight.reshape(())
    require_rank(x, 3)
    return weight.reshape(-1, 1, 1)


def _prelu(x: Tensor, *, PReLU_alpha: Tensor) -> Tensor:
    return torch.where(x >= 0, x, _by_channel(x, PReLU_alpha) * x)


def _parametric_softplus(x: Tensor, *, parametricSoftplus_alpha: Tensor, parametricSoftplus_beta: Tensor) -> Tensor:
    scaled = _by_channel(x, parametricSoftplus_beta) * x
    return _by_channel(x, parametricSoftplus_alpha) * functional.softplus(scaled)


@layer("clampedReLU")
def clamped_relu(given: Given) -> Run:
    compute, alpha, beta = operation("clamped_relu"), given.params.alpha, given.params.beta
    return lambda x: compute(x, alpha=alpha, beta=beta)


@layer("gelu")
def gelu(given: Given) -> Run:
    compute, mode = operation("gelu"), _GELU_MODES[given.params.mode]
    return lambda x: compute(x, mode=mode)


@layer("softmax")
def softmax(given: Given) -> Run:
    """Along the channels."""

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        return torch.softmax(x, CHANNEL)

    return run


@layer("softmaxND")
def softmax_nd(given: Given) -> Run:
    axis = given.params.axis
    return lambda x: torch.softmax(x, axis)
