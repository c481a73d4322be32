"""The iOS 18 operations: their parameters, in order, and the types of what they yield."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tensors import PalettizedTensor, QuantizedTensor, Support, pack_codes
from ..format.data_types import DataType, data_type_of
from ..format.values import Tensor
from .form import OperationForm, Output

LUT_TO_DENSE = "constexpr_lut_to_dense"
LUT_TO_SPARSE = "constexpr_lut_to_sparse"
BLOCKWISE_SHIFT_SCALE = "constexpr_blockwise_shift_scale"
SPARSE_BLOCKWISE_SHIFT_SCALE = "constexpr_sparse_blockwise_shift_scale"
SPARSE_TO_DENSE = "constexpr_sparse_to_dense"


def lut_to_dense(tensor: PalettizedTensor, lut: Tensor | Output) -> OperationForm:
    """Look a palettized tensor's indices up in a table."""
    indices = Tensor.packed(f"uint{tensor.nbits}", tensor.index_shape, tensor.indices)
    parameters: dict[str, Tensor | Output] = {"indices": indices, "lut": lut}
    if tensor.vector_axis is not None:
        parameters["vector_axis"] = Tensor.of(np.asarray(tensor.vector_axis, np.int32))
    return OperationForm(LUT_TO_DENSE, parameters, True, ((_type_of(lut), tensor.shape),))


def lut_to_sparse(tensor: PalettizedTensor, mask: Tensor, lut: Tensor | Output) -> OperationForm:
    """The same for the values of a sparse tensor; yields the mask and the values."""
    indices = Tensor.packed(f"uint{tensor.nbits}", tensor.shape, tensor.indices)
    return OperationForm(
        LUT_TO_SPARSE,
        {"indices_mask": mask, "indices_nonzero_data": indices, "lut": lut},
        True,
        ((mask.data_type, mask.shape), (_type_of(lut), tensor.shape)),
    )


def blockwise_shift_scale(
    data: Tensor | Output, scale: NDArray[Any], zero_point: NDArray[Any] | None = None, quantized_dtype: str = ""
) -> OperationForm:
    """Scale integers, less their zero points, or floats."""
    shape = data.shape if isinstance(data, Tensor) else data.form.outputs[data.index][1]
    parameters = {"data": data} | _scales(scale, zero_point, quantized_dtype)
    return OperationForm(BLOCKWISE_SHIFT_SCALE, parameters, True, ((data_type_of(scale.dtype), shape),))


def sparse_blockwise_shift_scale(tensor: QuantizedTensor, mask: Tensor) -> OperationForm:
    """The same for the values of a sparse tensor; yields the mask and the values."""
    parameters: dict[str, Tensor | Output] = {"data_mask": mask, "nonzero_data": quantized_data(tensor)}
    parameters |= _scales(tensor.scale, tensor.zero_point, tensor.quantized_dtype)
    outputs = (mask.data_type, mask.shape), (data_type_of(tensor.dtype), tensor.shape)
    return OperationForm(SPARSE_BLOCKWISE_SHIFT_SCALE, parameters, True, outputs)


def sparse_to_dense(nonzero_data: Tensor | Output, mask: Tensor | Output) -> OperationForm:
    """Put values at the ones of a mask."""
    return OperationForm(SPARSE_TO_DENSE, {"nonzero_data": nonzero_data, "mask": mask}, True)


def mask_of(support: Support) -> Tensor:
    """A mask of 1-bit elements."""
    return Tensor.packed("uint1", support.shape, support.mask)


def quantized_data(tensor: QuantizedTensor) -> Tensor:
    """The codes of a quantized tensor that are not palettized."""
    assert isinstance(tensor.data, np.ndarray)
    return Tensor.packed(tensor.quantized_dtype, tensor.shape, tensor.data)


def _scales(scale: NDArray[Any], zero_point: NDArray[Any] | None, quantized_dtype: str) -> dict[str, Tensor | Output]:
    parameters: dict[str, Tensor | Output] = {"scale": Tensor.of(scale)}
    if zero_point is not None and zero_point.dtype.kind == "f":
        parameters["offset"] = Tensor.of(zero_point)
    elif zero_point is not None:
        packed = pack_codes(zero_point, quantized_dtype)
        parameters["offset"] = Tensor.packed(quantized_dtype, zero_point.shape, packed)
    return parameters


def _type_of(given: Tensor | Output) -> DataType:
    return given.data_type if isinstance(given, Tensor) else given.form.outputs[given.index][0]
