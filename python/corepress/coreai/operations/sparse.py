"""``build_sparse_with_bitmask``, ``sparse_with_bitmask_to_dense`` and `SparseTensor`."""

from __future__ import annotations

from ...tensors import PalettizedTensor, QuantizedTensor, SparseTensor
from . import palettized, quantized
from .form import BUILD_SPARSE, SPARSE_TO_DENSE, Form, packed, values_of


def lower(tensor: SparseTensor) -> Form:
    """Values, and a mask of 1-bit elements in the weight's shape."""
    mask = packed("uint1", tensor.shape, tensor.mask)
    if isinstance(tensor.values, PalettizedTensor):
        return palettized.lower_sparse(tensor.values, mask)
    if isinstance(tensor.values, QuantizedTensor):
        return quantized.lower_sparse(tensor.values, mask)
    values = values_of(tensor.values)
    sparse = Form(BUILD_SPARSE, (values, mask), values.type, mask.shape, True)
    return Form(SPARSE_TO_DENSE, (sparse,), values.type, mask.shape)
