"""Quantize the weights of ``.mlmodel`` neural networks, which are stored in the model file itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compared_output import NetworkOutput
from .inspector import inspect
from .layers import QUANTIZABLE_LAYER_TYPES
from .modes import QUANTIZATION_MODES
from .plan import plan
from .quantizer import convert_to_fp16, decompress, quantize_weights
from .selection import WeightSelector
from .verify import verify

if TYPE_CHECKING:
    from ..allocation.networks import compress
    from ..runtime.compare import compare_models

__all__ = [
    "QUANTIZABLE_LAYER_TYPES",
    "QUANTIZATION_MODES",
    "NetworkOutput",
    "WeightSelector",
    "compare_models",
    "compress",
    "convert_to_fp16",
    "decompress",
    "inspect",
    "plan",
    "quantize_weights",
    "verify",
]


# What runs models, or is above what does, is imported when it is used.
_MODULE_OF = {"compare_models": "..runtime.compare", "compress": "..allocation.networks"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
