"""Quantize the weights of ``.mlmodel`` neural networks, which are stored in the model file itself."""

from __future__ import annotations

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
    from ..runtime.compare import compare_models

__all__ = [
    "QUANTIZABLE_LAYER_TYPES",
    "QUANTIZATION_MODES",
    "NetworkOutput",
    "WeightSelector",
    "compare_models",
    "convert_to_fp16",
    "decompress",
    "inspect",
    "plan",
    "quantize_weights",
    "verify",
]


def __getattr__(name: str) -> Any:
    """What needs the runtime is imported when it is used."""
    if name != "compare_models":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..runtime.compare import compare_models

    globals()[name] = compare_models
    return compare_models


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
