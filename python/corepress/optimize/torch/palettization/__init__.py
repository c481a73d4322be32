"""Palettization: weights as indices into palettes (lookup tables, LUTs)."""

from __future__ import annotations

from .fake_palettize import FakePalettize
from .palettization_config import DKMPalettizerConfig, ModuleDKMPalettizerConfig
from .palettizer import DKMPalettizer

__all__ = [
    "DKMPalettizer",
    "DKMPalettizerConfig",
    "FakePalettize",
    "ModuleDKMPalettizerConfig",
    "fake_palettize",
    "palettization_config",
    "palettizer",
]


def __dir__() -> list[str]:
    return __all__
