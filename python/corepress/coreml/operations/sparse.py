"""``constexpr_sparse_to_dense`` and `SparseTensor`."""

from __future__ import annotations

import numpy as np

from ...errors import FormatError
from ...tensors import PalettizedTensor, QuantizedTensor, SparseTensor
from ..format.values import Tensor
from . import palettized, quantized
from .form import OperationForm, Parameters, Types, UnsupportedForm, dense_shape, packed_bytes, parameter
from .ios18 import SPARSE_TO_DENSE, sparse_to_dense

__all__ = ["SPARSE_TO_DENSE"]


def lower_ios16(tensor: SparseTensor) -> OperationForm:
    """Values, mask bytes, and the shape."""
    if not isinstance(tensor.values, np.ndarray):
        raise ValueError(f"{SPARSE_TO_DENSE}: compressed values need specification version 9")
    return OperationForm(
        SPARSE_TO_DENSE,
        {
            "nonzero_data": Tensor.of(tensor.values),
            "mask": Tensor.of(tensor.mask),
            "shape": Tensor.of(np.array(tensor.shape, np.uint32)),
        },
    )


def lower_ios18(tensor: SparseTensor) -> OperationForm:
    """Values, and a mask of 1-bit elements in the weight's shape."""
    mask = Tensor.packed("uint1", tensor.shape, tensor.mask)
    if isinstance(tensor.values, PalettizedTensor):
        return palettized.lower_sparse(tensor.values, mask)
    if isinstance(tensor.values, QuantizedTensor):
        return quantized.lower_sparse(tensor.values, mask)
    return sparse_to_dense(Tensor.of(tensor.values), mask)


def lift(parameters: Parameters) -> SparseTensor:
    """Read either form."""
    if "shape" in parameters:
        mask, shape = parameter(parameters, "mask", "uint8"), dense_shape(parameters)
    else:
        mask = parameter(parameters, "mask", "uint1")
        shape = mask.shape
    nested = parameters.get("nonzero_data")
    if isinstance(nested, PalettizedTensor | QuantizedTensor):
        if nested.support is None:
            raise FormatError("its nonzero_data is a dense tensor")
        return SparseTensor(shape, packed_bytes(mask), nested)
    values = parameter(parameters, "nonzero_data")
    if values.data_type.name not in ("float16", "float32", "int8", "uint8"):
        raise UnsupportedForm(f"values of {values.data_type.name}")
    return SparseTensor(shape, packed_bytes(mask), values.data)


def describe(types: Types) -> str:
    """From the parameters' types."""
    return f"sparse {types['nonzero_data'][0].name}" if "nonzero_data" in types else "sparse"
