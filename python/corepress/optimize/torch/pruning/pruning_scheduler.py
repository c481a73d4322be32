"""Schedules: how many weights are zero at which step of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from attrs import cmp_using, define, field, validators

from ....training.schedules import polynomial
from .._utils.torch_utils import list_or_str_to_tensor

__all__ = ["ConstantSparsityScheduler", "PolynomialDecayScheduler", "PruningScheduler"]


def __dir__() -> list[str]:
    return __all__


class PruningScheduler(ABC):
    """What decides the sparsity at each step of training."""

    @abstractmethod
    def compute_sparsity(self, step_count: int, prev_sparsity: float, config: Any) -> float:
        """Return the sparsity at a step.

        Parameters
        ----------
        step_count : int
            The steps that were taken, this one included: 1 at the first.
        prev_sparsity : float
            At the step before.
        config : ModuleOptimizationConfig
            The module's options: ``initial_sparsity`` and ``target_sparsity``.
        """


@define
class PolynomialDecayScheduler(PruningScheduler):
    """Sparsity grows from the initial one, at the first of some steps, to the target, at the last of them.

    Attributes
    ----------
    update_steps : torch.Tensor
        The steps at which it grows; from a list, a tensor or a text such as ``"range(0, 1000, 10)"``. The first step
        of training is 1. With one step only, it is the target from there on.
    power : int
        Of the polynomial: above 1 sparsity grows fast at first, then slower.
    """

    update_steps: Any = field(converter=list_or_str_to_tensor, eq=cmp_using(eq=torch.equal))
    power: int = field(default=3, validator=validators.instance_of(int))

    @update_steps.validator
    def _check_update_steps(self, attribute: Any, steps: torch.Tensor) -> None:
        if steps.ndim != 1 or bool((steps != steps.floor()).any()) or bool((steps < 0).any()):
            raise ValueError(
                f"PolynomialDecayScheduler: update_steps must be whole numbers from 0 on, in a list, not {steps}"
            )

    def compute_sparsity(self, step_count: int, prev_sparsity: float, config: Any) -> float:
        places = (self.update_steps == step_count).nonzero()
        if len(places) == 0:
            return prev_sparsity
        last = len(self.update_steps) - 1
        progress = int(places[0]) / last if last else 1.0
        initial: float = getattr(config, "initial_sparsity", 0.0)
        return polynomial(initial, config.target_sparsity, progress, self.power)


@define
class ConstantSparsityScheduler(PruningScheduler):
    """Sparsity is the target from some step on, and the initial one before.

    Attributes
    ----------
    begin_step : int
        The first step of training is 1; 0 is the same.
    """

    begin_step: int = field(validator=validators.instance_of(int))

    def compute_sparsity(self, step_count: int, prev_sparsity: float, config: Any) -> float:
        target: float = config.target_sparsity
        return target if step_count >= self.begin_step else prev_sparsity
