"""Batch normalization after a convolution or a linear layer: its scale is part of the weight that is quantized.

In training, the weight is quantized as it will be after folding, and divided by the scale again, so that the batch
normalization that follows sees the same outputs and keeps its statistics. Source: Jacob et al., "Quantization and
training of neural networks for efficient integer-arithmetic-only inference", 2018.
"""

from __future__ import annotations

from typing import Any

import torch

from .fake_quantize import FakeQuantize

SMALLEST_FACTOR = 1e-12  # of a channel whose scale is zero: its weight is quantized as it is


def factors(batch_norm: torch.nn.Module) -> torch.Tensor:
    """Return what batch normalization by its running statistics multiplies each channel by."""
    module: Any = batch_norm
    inverse = torch.rsqrt(module.running_var + module.eps)
    return inverse if module.weight is None else module.weight * inverse


def scaled(weight: torch.Tensor, factor: torch.Tensor, out_axis: int, groups: int = 1) -> torch.Tensor:
    """Return a weight with each output channel multiplied by its factor.

    Parameters
    ----------
    weight : torch.Tensor
    factor : torch.Tensor, shape (output channels,)
    out_axis : int
        Of the output channels: 0, or 1 in transposed convolutions, where it has those of one group.
    groups : int
        Of a transposed convolution; its input channels, axis 0, are in groups.
    """
    if out_axis == 0:
        return weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    each = factor.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (weight.reshape(groups, -1, *weight.shape[1:]) * each).reshape(weight.shape)


class FoldedFakeQuantize(torch.nn.Module):
    """Parametrization: fake quantization of a weight as it is with the batch normalization that follows folded in.

    Parameters
    ----------
    fake_quantize : FakeQuantize
    batch_norm : torch.nn.Module
        Not a child of this module: the model has it.
    out_axis, groups : int
        As in `scaled`.
    """

    def __init__(self, fake_quantize: FakeQuantize, batch_norm: torch.nn.Module, out_axis: int, groups: int) -> None:
        super().__init__()
        self.fake_quantize = fake_quantize
        self._batch_norm = (batch_norm,)
        self.out_axis = out_axis
        self.groups = groups

    @property
    def batch_norm(self) -> torch.nn.Module:
        """The batch normalization."""
        return self._batch_norm[0]

    def folded(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with the batch normalization folded in, quantized as far as that is enabled."""
        result: torch.Tensor = self.fake_quantize(scaled(weight, factors(self.batch_norm), self.out_axis, self.groups))
        return result

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is trained when a module's weight is assigned: the weight itself."""
        return weight

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight quantized with the batch normalization folded in, which is then divided out."""
        factor = factors(self.batch_norm)
        factor = torch.where(factor.abs() < SMALLEST_FACTOR, 1.0, factor).to(weight.dtype)
        folded = scaled(weight, factor, self.out_axis, self.groups)
        quantized = self.fake_quantize(folded)
        if quantized is folded:
            return weight
        return scaled(quantized, 1.0 / factor, self.out_axis, self.groups)


class FrozenStatistics(torch.nn.Module):
    """Whether a batch normalization uses its running statistics in training too, and no longer changes them."""

    freeze_bn: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freeze_bn", torch.tensor([0], dtype=torch.uint8))
        self.frozen = False

    def freeze_bn_stats(self, frozen: bool = True) -> None:
        """Freeze the statistics, or update them again."""
        self.freeze_bn.fill_(int(frozen))
        self.frozen = frozen

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.frozen = bool(self.freeze_bn[0])


CHILD = "frozen_statistics"


class _EvaluateFrozen:
    """Forward pre-hook: `torch.nn.Module.train` turns on what is frozen too."""

    def __call__(self, module: torch.nn.Module, arguments: Any) -> None:
        if module.training and getattr(module, CHILD).frozen:
            module.training = False


def attach_freezing(batch_norm: torch.nn.Module) -> FrozenStatistics:
    """Let the statistics of a batch normalization be frozen; return what does it, a child of the module."""
    if not hasattr(batch_norm, CHILD):
        batch_norm.add_module(CHILD, FrozenStatistics())
        batch_norm.register_forward_pre_hook(_EvaluateFrozen())
    return getattr(batch_norm, CHILD)  # type: ignore[no-any-return]


def detach_freezing(batch_norm: torch.nn.Module) -> None:
    """Undo `attach_freezing`."""
    hooks = batch_norm._forward_pre_hooks
    for key in [key for key, hook in hooks.items() if isinstance(hook, _EvaluateFrozen)]:
        del hooks[key]
    if hasattr(batch_norm, CHILD):
        delattr(batch_norm, CHILD)


@torch.no_grad()
def fold_bias(module: torch.nn.Module, batch_norm: torch.nn.Module) -> None:
    """Give a module, whose weight has the batch normalization folded in, the bias that goes with it.

    Parameters
    ----------
    module : torch.nn.Module
        With ``bias``, a parameter or None. Changed.
    batch_norm : torch.nn.Module
    """
    norm: Any = batch_norm
    bias: Any = module.bias
    shift = -norm.running_mean if bias is None else bias - norm.running_mean
    shift = shift * factors(norm)
    if norm.bias is not None:
        shift = shift + norm.bias
    trained = bool(bias is None or bias.requires_grad)
    module.bias = torch.nn.Parameter(shift.detach().clone(), requires_grad=trained)
