"""Quantize the weights of ``.mlmodel`` neural networks, which are stored in the model file itself."""

from .compare import compare_models
from .inspector import inspect
from .layers import QUANTIZABLE_LAYER_TYPES
from .modes import QUANTIZATION_MODES
from .plan import plan
from .predictions import NetworkOutput
from .quantizer import convert_to_fp16, decompress, quantize_weights
from .selection import WeightSelector
from .verify import verify

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
