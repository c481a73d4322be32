"""Quantizing the weights of ``.mlmodel`` neural networks, which hold them in the model file itself."""

from .layers import QUANTIZABLE_LAYER_TYPES
from .modes import QUANTIZATION_MODES
from .quantizer import convert_to_fp16, decompress, quantize_weights
from .selection import WeightSelector

__all__ = [
    "QUANTIZABLE_LAYER_TYPES",
    "QUANTIZATION_MODES",
    "WeightSelector",
    "convert_to_fp16",
    "decompress",
    "quantize_weights",
]
