"""Native-accelerated compression of Core ML weights.

Arrays: `palettize`, `quantize`, `prune`, `error`, and the building blocks in `corepress.kernels`.
Models: ``from corepress import coreml``, and `Config` for which weights get which steps; ``from corepress import
runtime`` runs them.
In place of coremltools: `corepress.optimize.coreml`; inside coremltools: `accelerate`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import kernels
    from ._core import __version__, simd_level, simd_levels
    from .acceleration import accelerate
    from .compression import palettize, prune, quantize
    from .compression.metrics import Error, error
    from .config import Config
    from .errors import (
        FormatError,
        IndivisibleError,
        MissingExtraError,
        NonFiniteError,
        OperationError,
        SourceChangedError,
        TooFewZerosError,
        TooManyValuesError,
        UnsuitableWeightError,
        UnsupportedOperationError,
    )
    from .native import get_cmake_dir, get_include, get_library
    from .tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor, Support

__all__ = [
    "CompressedTensor",
    "Config",
    "Error",
    "FormatError",
    "IndivisibleError",
    "MissingExtraError",
    "NonFiniteError",
    "OperationError",
    "PalettizedTensor",
    "QuantizedTensor",
    "SourceChangedError",
    "SparseTensor",
    "Support",
    "TooFewZerosError",
    "TooManyValuesError",
    "UnsuitableWeightError",
    "UnsupportedOperationError",
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

# The modules of these names, which are imported when they are used: the command line can take Ctrl-C before NumPy and
# the kernels are loaded, and what reads config files is loaded only for those who have some.
_MODULES = {
    "_core": "__version__ simd_level simd_levels",
    "acceleration": "accelerate",
    "compression": "palettize prune quantize",
    "config": "Config",
    "errors": "FormatError IndivisibleError MissingExtraError NonFiniteError OperationError SourceChangedError "
    "TooFewZerosError TooManyValuesError UnsuitableWeightError UnsupportedOperationError",
    "compression.metrics": "Error error",
    "native": "get_cmake_dir get_include get_library",
    "tensors": "CompressedTensor PalettizedTensor QuantizedTensor SparseTensor Support",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "kernels":
        return import_module(".kernels", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
