"""The life cycles of the optimizers, and their reports."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch

from ._utils.reports import Report
from .optimization_config import OptimizationConfig

__all__ = [
    "BaseDataCalibratedModelOptimizer",
    "BaseModelOptimizer",
    "BasePostTrainingModelOptimizer",
    "BaseTrainingTimeModelOptimizer",
]


def __dir__() -> list[str]:
    return __all__


_Report = Report  # coremltools' name


class BaseModelOptimizer(ABC):
    """What compresses a model.

    Parameters
    ----------
    model : torch.nn.Module
    config : OptimizationConfig, optional
    """

    _supported_modules: tuple[type[torch.nn.Module], ...]

    def __init__(self, model: torch.nn.Module, config: OptimizationConfig | None = None) -> None:
        self._model = model
        self._config = config

    @abstractmethod
    def report(self) -> Report:
        """Return figures for each compressed weight."""

    @property
    def supported_modules(self) -> tuple[type[torch.nn.Module], ...]:
        """Types of the modules that can be compressed."""
        return self._supported_modules

    def _get_model_for_compression(self, inplace: bool) -> torch.nn.Module:
        return self._model if inplace else copy.deepcopy(self._model)


class BaseTrainingTimeModelOptimizer(BaseModelOptimizer):
    """What compresses a model while it trains: `prepare`, then `step` after each step of training, then `finalize`."""

    def __init__(self, model: torch.nn.Module, config: OptimizationConfig | None = None) -> None:
        super().__init__(model, config)
        self._step_count = 0

    @abstractmethod
    def prepare(self, *args: Any, **kwargs: Any) -> torch.nn.Module:
        """Return the model with what simulates its compression."""

    @abstractmethod
    def step(self) -> None:
        """Advance the schedule by one step of training."""

    @abstractmethod
    def finalize(self, model: torch.nn.Module | None = None, inplace: bool = False) -> torch.nn.Module:
        """Return the model with compressed weights, a plain module again."""


class BasePostTrainingModelOptimizer(BaseModelOptimizer):
    """What compresses a trained model without data."""

    def __init__(self, model: torch.nn.Module, config: OptimizationConfig | None = None) -> None:
        super().__init__(model, config)
        self._uncompressed_model: torch.nn.Module | None = None

    def compress(self, *args: Any, inplace: bool = False, **kwargs: Any) -> torch.nn.Module:
        """Take the model to be compressed: itself, or a copy; the other one is kept for the report."""
        self._uncompressed_model = self._get_model_for_compression(inplace=not inplace)
        self._model = self._get_model_for_compression(inplace=inplace)
        return self._model


class BaseDataCalibratedModelOptimizer(BaseModelOptimizer):
    """What compresses a trained model with samples of its inputs."""

    def __init__(self, model: torch.nn.Module, config: OptimizationConfig | None = None) -> None:
        super().__init__(model, config)
        self._uncompressed_model: torch.nn.Module | None = None

    def compress(self, dataloader: Iterable[Any], *args: Any, inplace: bool = False, **kwargs: Any) -> torch.nn.Module:
        """Take the model to be compressed: itself, or a copy; the other one is kept for the report."""
        self._uncompressed_model = self._get_model_for_compression(inplace=not inplace)
        self._model = self._get_model_for_compression(inplace=inplace)
        return self._model
