"""Quantization: weights, and activations, as integers with scales; while a model trains, and after it."""

from __future__ import annotations

from .post_training_quantization import (
    ModulePostTrainingQuantizerConfig,
    PostTrainingQuantizer,
    PostTrainingQuantizerConfig,
)
from .quantization_config import (
    LinearQuantizerConfig,
    ModuleLinearQuantizerConfig,
    ObserverType,
    QuantizationScheme,
)
from .quantizer import LinearQuantizer

__all__ = [
    "LinearQuantizer",
    "LinearQuantizerConfig",
    "ModuleLinearQuantizerConfig",
    "ModulePostTrainingQuantizerConfig",
    "ObserverType",
    "PostTrainingQuantizer",
    "PostTrainingQuantizerConfig",
    "QuantizationScheme",
    "modules",
    "post_training_quantization",
    "quantization_config",
    "quantizer",
]


def __dir__() -> list[str]:
    return __all__
