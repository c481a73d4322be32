"""Pruning: weights of small magnitude become zero while the others train on."""

from __future__ import annotations

from .magnitude_pruner import MagnitudePruner, MagnitudePrunerConfig, ModuleMagnitudePrunerConfig
from .pruning_scheduler import ConstantSparsityScheduler, PolynomialDecayScheduler

__all__ = [
    "ConstantSparsityScheduler",
    "MagnitudePruner",
    "MagnitudePrunerConfig",
    "ModuleMagnitudePrunerConfig",
    "PolynomialDecayScheduler",
    "magnitude_pruner",
    "pruning_scheduler",
]


def __dir__() -> list[str]:
    return __all__
