"""Which tensors carry the values of Core ML's element types in a run.

Floating-point values are computed and carried as float32; those that the program declares float16 lie on float16's
grid. Unsigned types that PyTorch computes poorly with are carried by the next wider signed one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...coreml.format.data_types import DataType

_CARRIERS = {
    "float16": torch.float32,
    "float32": torch.float32,
    "float64": torch.float64,
    "bool": torch.bool,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "uint16": torch.int32,
    "int32": torch.int32,
    "uint32": torch.int64,
    "int64": torch.int64,
    "uint64": torch.int64,
    # Parts of a byte occur only as results of constant operations.
    **dict.fromkeys(("int4", "uint1", "uint2", "uint3", "uint4", "uint6"), torch.int8),
}
# The attribute of a parameter with a function that widens it in place of `widened`, where gradients are computed.
WATCHED = "corepress_watched"
_ARRAYS = {"bool": np.bool_, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64, "float16": np.float16}


def carrier_of(data_type: DataType) -> torch.dtype | None:
    """The dtype of tensors that carry this type; None for types that are not numbers."""
    return _CARRIERS.get(data_type.name)


def widened(weight: Tensor) -> Tensor:
    """A weight as it is computed with: float16 as float32."""
    watched = getattr(weight, WATCHED, None)
    if watched is not None and torch.is_grad_enabled():
        use: Tensor = watched(weight)
        return use
    return weight.float() if weight.dtype is torch.float16 else weight


def rounded(result: Tensor) -> Tensor:
    """Float32, rounded to what float16 can hold."""
    return result.half().float()


def to_carrier(tensor: Tensor, data_type: DataType) -> Tensor:
    """A tensor of a function as the carrier of a type; float16 is rounded to."""
    if data_type.name == "float16":
        return rounded(tensor)
    dtype = carrier_of(data_type)
    return tensor if dtype is None else tensor.to(dtype)


def tensor_of(array: NDArray[Any], data_type: DataType) -> Tensor:
    """The carrier of an array; a copy, since arrays may be views of files."""
    dtype = carrier_of(data_type)
    assert dtype is not None, data_type
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.array(array, copy=True)).to(dtype)


def array_of(tensor: Tensor, data_type: DataType) -> NDArray[Any]:
    """A carrier as an array of its declared type."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    dtype = _ARRAYS.get(data_type.name)
    return array if dtype is None else array.astype(dtype)
