"""``constexpr_sparse_to_dense`` and `SparseTensor`."""

from __future__ import annotations

import numpy as np

from ...tensors import SparseTensor
from ..values import Tensor
from .form import OperationForm, Parameters, Types, UnsupportedForm, dense_shape, packed_bytes, parameter

SPARSE_TO_DENSE = "constexpr_sparse_to_dense"


def lower_ios16(tensor: SparseTensor) -> OperationForm:
    """Values, mask bytes, and the shape."""
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
    return OperationForm(
        SPARSE_TO_DENSE,
        {
            "nonzero_data": Tensor.of(tensor.values),
            "mask": Tensor.packed("uint1", tensor.shape, tensor.mask),
        },
        in_inputs=True,
    )


def lift(parameters: Parameters) -> SparseTensor:
    """Read either form."""
    values = parameter(parameters, "nonzero_data")
    if values.data_type.name not in ("float16", "float32"):
        raise UnsupportedForm(f"values of {values.data_type.name}")
    if "shape" in parameters:
        mask, shape = parameter(parameters, "mask", "uint8"), dense_shape(parameters)
    else:
        mask = parameter(parameters, "mask", "uint1")
        shape = mask.shape
    return SparseTensor(shape, packed_bytes(mask), values.data)


def describe(types: Types) -> str:
    """From the parameters' types."""
    return f"sparse {types['nonzero_data'][0].name}" if "nonzero_data" in types else "sparse"
