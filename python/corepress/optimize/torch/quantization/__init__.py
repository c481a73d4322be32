"""Quantization under coremltools' names: in training (`LinearQuantizer`) and after it."""

from __future__ import annotations

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
    "ObserverType",
    "QuantizationScheme",
]
