"""Activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import implements


@implements("clamped_relu")
def clamped_relu(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """At most ``beta``; negative values are multiplied by ``alpha`` first."""
    return F.leaky_relu(x, alpha).clamp(max=beta)


@implements("elu")
def elu(x: Tensor, *, alpha: float) -> Tensor:
    return F.elu(x, alpha)


@implements("gelu")
def gelu(x: Tensor, *, mode: str = "EXACT") -> Tensor:
    if mode == "EXACT":
        return F.gelu(x)
    if mode == "TANH_APPROXIMATION":
        return F.gelu(x, approximate="tanh")
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    raise ValueError(f"mode must be EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION, got {mode!r}")


@implements("leaky_relu")
def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    return F.leaky_relu(x, alpha)


@implements("linear_activation")
def linear_activation(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return x * alpha + beta


@implements("prelu")
def prelu(x: Tensor, alpha: Tensor) -> Tensor:
    """A leaky ReLU with a slope for each channel, axis 1."""
    return F.prelu(x, alpha)


@implements("relu", exact=True)
def relu(x: Tensor) -> Tensor:
    return torch.relu(x)


@implements("relu6", exact=True)
def relu6(x: Tensor) -> Tensor:
    return F.relu6(x)


@implements("scaled_tanh")
def scaled_tanh(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return alpha * torch.tanh(x * beta)


@implements("sigmoid")
def sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x)


@implements("sigmoid_hard")
def sigmoid_hard(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    return (x * alpha + beta).clamp(0.0, 1.0)


@implements("silu")
def silu(x: Tensor) -> Tensor:
    return F.silu(x)


@implements("softmax")
def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@implements("softplus")
def softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@implements("softplus_parametric")
def softplus_parametric(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """``alpha * log(1 + exp(beta * x))`` with an ``alpha`` and a ``beta`` for each channel, axis 1."""
    shape = (-1,) + (1,) * (x.dim() - 2)
    return alpha.view(shape) * F.softplus(x * beta.view(shape))


@implements("softsign")
def softsign(x: Tensor) -> Tensor:
    return F.softsign(x)


@implements("thresholded_relu", exact=True)
def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """``alpha`` itself passes."""
    return torch.where(x >= alpha, x, 0.0)
