"""Native-accelerated compression of Core ML weights.

Arrays: `palettize`, `quantize`, `prune`, `error`, and the parts in `corepress.kernels`.
Models: ``from corepress import coreml``, and `Config` for which weights get which steps.
In the place of coremltools: `corepress.optimize.coreml`; inside of it: `accelerate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import kernels
from ._core import __version__, simd_level, simd_levels
from .acceleration import accelerate
from .compression import palettize, prune, quantize
from .errors import (
    FormatError,
    IndivisibleError,
    NonFiniteError,
    SourceChangedError,
    TooFewZerosError,
    TooManyValuesError,
    UnsuitableWeightError,
)
from .measure import Error, error
from .native import get_cmake_dir, get_include, get_library
from .tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor, Support

__all__ = [
    "CompressedTensor",
    "Config",
    "Error",
    "FormatError",
    "IndivisibleError",
    "NonFiniteError",
    "PalettizedTensor",
    "QuantizedTensor",
    "SourceChangedError",
    "SparseTensor",
    "Support",
    "TooFewZerosError",
    "TooManyValuesError",
    "UnsuitableWeightError",
    "__version__",
    "accelerate",
    "error",
    "get_cmake_dir",
    "get_include",
    "get_library",
    "kernels",
    "palettize",
    "prune",
    "quantize",
    "simd_level",
    "simd_levels",
]

if TYPE_CHECKING:
    from .config import Config


def __getattr__(name: str) -> Any:
    """Import what reads config files only for those who use it."""
    if name != "Config":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .config import Config

    globals()["Config"] = Config
    return Config


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
