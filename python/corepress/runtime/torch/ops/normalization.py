"""Normalizations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import implements


@implements("batch_norm")
def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """With the mean and the variance given, of the channels of axis 1."""
    if not (torch.is_grad_enabled() and (mean.requires_grad or variance.requires_grad)):
        return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)
    # PyTorch's kernel has no gradient for the mean and the variance.
    shape = (-1,) + (1,) * (x.dim() - 2)
    scale = torch.rsqrt(variance + epsilon)
    if gamma is not None:
        scale = scale * gamma
    result = (x - mean.view(shape)) * scale.view(shape)
    return result if beta is None else result + beta.view(shape)


@implements("instance_norm")
def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, *, epsilon: float = 1e-5
) -> Tensor:
    """Over all axes from axis 2 on."""
    # The kernel of a group for each channel; torch.nn.functional's functions refuse channels of one element.
    return torch.group_norm(x, x.shape[1], gamma, beta, epsilon)


@implements("l2_norm")
def l2_norm(x: Tensor, *, epsilon: float = 1e-6) -> Tensor:
    """Divides by the root of the sum of squares over the last three axes, and of ``epsilon``."""
    if x.dim() < 3:
        raise ValueError(f"x must have rank 3 or more, got {x.dim()}")
    return x / (x.square().sum((-3, -2, -1), keepdim=True) + epsilon).sqrt()


@implements("layer_norm")
def layer_norm(
    x: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    axes: Sequence[int] | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over any axes, all by default; ``gamma`` and ``beta`` have the shape of these axes, in ascending order."""
    rank = x.dim()
    if axes is not None and len(axes) == 1 and axes[0] in (-1, rank - 1):
        return torch.layer_norm(x, x.shape[-1:], gamma, beta, epsilon)
    normalized = list(range(rank)) if axes is None else sorted({axis % rank for axis in axes})
    if not normalized:
        raise ValueError("axes must name at least one axis, got []")
    first = rank - len(normalized)
    if normalized[0] == first:
        return F.layer_norm(x, x.shape[first:], gamma, beta, epsilon)
    order = [axis for axis in range(rank) if axis not in normalized] + normalized
    result = F.layer_norm(x.permute(order), [x.shape[axis] for axis in normalized], gamma, beta, epsilon)
    return result.permute([order.index(axis) for axis in range(rank)])


@implements("local_response_norm")
def local_response_norm(x: Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Windows of ``size`` run across axis -3, which is not that of the channels where ``x`` has rank 3.

    A window of even size reaches one element further back than forth.
    """
    if x.dim() < 3:
        raise ValueError(f"x must have rank 3 or more, got {x.dim()}")
    if size < 1:
        raise ValueError(f"size must be positive, got {size}")
    channels = x.shape[-3]
    squares = F.pad(x.square().reshape(-1, 1, channels, x.shape[-2] * x.shape[-1]), (0, 0, size // 2, (size - 1) // 2))
    mean = F.avg_pool2d(squares, (size, 1), stride=1).reshape(x.shape)
    return x / (mean * alpha + k) ** beta
