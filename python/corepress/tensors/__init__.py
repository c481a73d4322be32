"""Compressed tensors: what the kernels produce and what files store. Nothing here knows a verb or a file."""

from .base import (
    QUANTIZED_DTYPES,
    CompressedTensor,
    Support,
    ones_of,
    pack_codes,
    pack_ones,
    packed_size,
    unpack_codes,
)
from .forms import PalettizedTensor, QuantizedTensor, SparseTensor

__all__ = [
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
]
