"""Weights that are pruned while they train: the parametrization that multiplies by a mask."""

from __future__ import annotations

from typing import Any

import torch

from .masks import MaskRule


class Pruned(torch.nn.Module):
    """A weight times a mask; what is removed has no gradient, and can come back with a later mask.

    All of its state is in buffers: the mask, the share that it removes, and how many steps of training were taken.

    Parameters
    ----------
    weight : torch.Tensor
        As it is before training.
    rule : MaskRule
        How masks are chosen.
    sparsity : float
        The share that the first mask removes.
    """

    mask: torch.Tensor
    sparsity: torch.Tensor
    steps: torch.Tensor

    def __init__(self, weight: torch.Tensor, rule: MaskRule, sparsity: float) -> None:
        super().__init__()
        self.rule = rule
        self.level, self.count = sparsity, 0  # what the buffers say, without waiting for a device
        self.register_buffer("mask", rule.mask(weight, sparsity).to(weight))
        self.register_buffer("sparsity", torch.tensor(sparsity, device=weight.device))
        self.register_buffer("steps", torch.tensor(0, device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight with zeros for what is removed."""
        return weight * self.mask

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        """Return what is trained when a module's weight is assigned: the weight itself."""
        return weight

    def advance(self, steps: int, weight: torch.Tensor, sparsity: float) -> None:
        """Count the steps of training; find the mask anew if another share is to be removed.

        Parameters
        ----------
        steps : int
            That were taken.
        weight : torch.Tensor
            What is trained.
        sparsity : float
        """
        # After a state was loaded, the share is known with the buffer's precision only.
        if torch.tensor(sparsity, dtype=self.sparsity.dtype) != torch.tensor(self.level, dtype=self.sparsity.dtype):
            self.update(weight, sparsity)
        self.level, self.count = sparsity, steps
        self.steps.fill_(steps)

    def update(self, weight: torch.Tensor, sparsity: float) -> None:
        """Find the mask anew, for a weight and the share that is removed."""
        with torch.no_grad():
            self.mask.copy_(self.rule.mask(weight, sparsity))
        self.level = sparsity
        self.sparsity.fill_(sparsity)

    def extra_repr(self) -> str:
        """Return the rule and the share, for the module's text."""
        return f"{self.rule}, sparsity={self.level:g}"

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.level, self.count = float(self.sparsity), int(self.steps)
