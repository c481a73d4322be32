"""Compressed tensors: what the kernels produce and what files store. Nothing here knows a verb or a file."""

from .base import (
    CompressedTensor,
    Support,
    ones_of,
    pack_codes,
    pack_ones,
    packed_size,
    unpack_codes,
)
from .dtypes import BINARY_SCALES, CORE_ML_DTYPES, FLOAT_CODES, QUANTIZED_DTYPES, values_of_codes
from .forms import PalettizedTensor, QuantizedTensor, SparseTensor

__all__ = [
    "BINARY_SCALES",
    "CORE_ML_DTYPES",
    "FLOAT_CODES",
    "QUANTIZED_DTYPES",
    "CompressedTensor",
    "PalettizedTensor",
    "QuantizedTensor",
    "SparseTensor",
    "Support",
    "ones_of",
    "pack_codes",
    "pack_ones",
    "packed_size",
    "unpack_codes",
    "values_of_codes",
]
