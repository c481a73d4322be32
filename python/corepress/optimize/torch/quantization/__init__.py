"""Quantization: weights, and activations, as integers with scales."""

from __future__ import annotations

from .post_training_quantization import (
    ModulePostTrainingQuantizerConfig,
    PostTrainingQuantizer,
    PostTrainingQuantizerConfig,
)
from .quantization_config import QuantizationScheme

__all__ = [
    "ModulePostTrainingQuantizerConfig",
    "PostTrainingQuantizer",
    "PostTrainingQuantizerConfig",
    "QuantizationScheme",
    "post_training_quantization",
    "quantization_config",
]


def __dir__() -> list[str]:
    return __all__
