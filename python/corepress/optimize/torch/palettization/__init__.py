"""Palettization: weights as indices into palettes (lookup tables, LUTs)."""

from __future__ import annotations

from .fake_palettize import FakePalettize
from .palettization_config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from .palettizer import DKMPalettizer
from .post_training_palettization import (
    ModulePostTrainingPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
)
from .sensitive_k_means import ModuleSKMPalettizerConfig, SKMPalettizer, SKMPalettizerConfig

__all__ = [
    "DKMPalettizer",
    "DKMPalettizerConfig",
    "FakePalettize",
    "ModuleDKMPalettizerConfig",
    "ModulePostTrainingPalettizerConfig",
    "ModuleSKMPalettizerConfig",
    "PostTrainingPalettizer",
    "PostTrainingPalettizerConfig",
    "SKMPalettizer",
    "SKMPalettizerConfig",
    "fake_palettize",
    "palettization_config",
    "palettizer",
    "post_training_palettization",
    "sensitive_k_means",
]


def __dir__() -> list[str]:
    return __all__
