"""``constexpr_affine_dequantize``, ``constexpr_blockwise_shift_scale`` and `QuantizedTensor`."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...specs import Quantize
from ...tensors import QUANTIZED_DTYPES, QuantizedTensor, pack_codes, unpack_codes
from ..values import Tensor
from .form import OperationForm, Parameters, Types, UnsupportedForm, packed_bytes, parameter, scalar

AFFINE_DEQUANTIZE = "constexpr_affine_dequantize"
BLOCKWISE_SHIFT_SCALE = "constexpr_blockwise_shift_scale"
SPARSE_BLOCKWISE_SHIFT_SCALE = "constexpr_sparse_blockwise_shift_scale"


def needs_ios18(spec: Quantize) -> tuple[str, str] | None:
    """What in the spec the iOS 16 form cannot express, and what to use instead."""
    if QUANTIZED_DTYPES[spec.dtype][0] < 8:
        return f"dtype {spec.dtype!r}", f"use {spec.dtype.replace('4', '8')!r}"
    if spec.granularity == "per_block":
        return "granularity 'per_block'", "use 'per_channel'"
    return None


def lower_ios16(tensor: QuantizedTensor) -> OperationForm:
    """One scale and zero point for the tensor, or one per entry of one axis."""
    if tensor.nbits < 8:
        raise ValueError(f"{AFFINE_DEQUANTIZE}: {tensor.quantized_dtype} needs specification version 9")
    axes = [axis for axis, blocks in enumerate(tensor.scale.shape) if blocks > 1]
    if len(axes) > 1 or any(tensor.block_shape[axis] > 1 for axis in axes):
        raise ValueError(f"{AFFINE_DEQUANTIZE}: blocks of {tensor.block_shape} need specification version 9")
    shape = (tensor.scale.size,) if axes else ()
    zero_point = tensor.zero_point
    if zero_point is None:
        zero_point = np.zeros(tensor.scale.shape, QUANTIZED_DTYPES[tensor.quantized_dtype][1])
    return OperationForm(
        AFFINE_DEQUANTIZE,
        {
            "quantized_data": Tensor.packed(tensor.quantized_dtype, tensor.shape, tensor.data),
            "zero_point": Tensor.of(zero_point.reshape(shape)),
            "scale": Tensor.of(tensor.scale.reshape(shape)),
            "axis": scalar(axes[0] if axes else 0, np.int32),
        },
    )


def lower_ios18(tensor: QuantizedTensor) -> OperationForm:
    """One scale, and where there are zero points one offset, per block."""
    parameters = {
        "data": Tensor.packed(tensor.quantized_dtype, tensor.shape, tensor.data),
        "scale": Tensor.of(tensor.scale),
    }
    if tensor.zero_point is not None:
        parameters["offset"] = Tensor.packed(
            tensor.quantized_dtype, tensor.zero_point.shape, pack_codes(tensor.zero_point, tensor.quantized_dtype)
        )
    return OperationForm(BLOCKWISE_SHIFT_SCALE, parameters, in_inputs=True)


def lift_affine_dequantize(parameters: Parameters) -> QuantizedTensor:
    """Read the iOS 16 form."""
    data = parameter(parameters, "quantized_data", "int8", "uint8")
    rank = len(data.shape)
    axis = int(parameter(parameters, "axis", "int32").data.reshape(-1)[0])
    if not -rank <= axis < rank:
        raise FormatError(f"its axis {axis} is out of range for shape {data.shape}")
    scale = _along(axis, data, parameter(parameters, "scale", "float16", "float32"))
    offset = _along(axis, data, parameter(parameters, "zero_point", "int8", "uint8", "float32"))
    shape = np.broadcast_shapes(scale.shape, offset.shape)
    return _tensor(data, np.broadcast_to(scale, shape), np.broadcast_to(offset, shape))


def _along(axis: int, data: Tensor, values: Tensor) -> NDArray[Any]:
    shape = [1] * len(data.shape)
    if values.shape:
        shape[axis] = values.count
        if values.shape != (data.shape[axis],):
            raise FormatError(f"has parameters of shape {values.shape} along axis {axis} of shape {data.shape}")
    return values.data.reshape(shape)


def lift_blockwise_shift_scale(parameters: Parameters) -> QuantizedTensor:
    """Read the iOS 18 form."""
    data, scale = parameter(parameters, "data"), parameter(parameters, "scale", "float16", "float32")
    if data.data_type.name not in QUANTIZED_DTYPES:
        raise UnsupportedForm(f"data of {data.data_type.name}")
    if "offset" not in parameters:
        return _tensor(data, scale.data, None)
    offset = parameters["offset"]
    if offset.shape != scale.shape:
        raise FormatError(f"its offset has shape {offset.shape}, its scale {scale.shape}")
    if offset.data_type.name in QUANTIZED_DTYPES:
        return _tensor(data, scale.data, unpack_codes(packed_bytes(offset), offset.shape, offset.data_type.name))
    if offset.data_type.dtype is None:
        raise UnsupportedForm(f"an offset of {offset.data_type.name}")
    return _tensor(data, scale.data, offset.data)


def _tensor(data: Tensor, scale: NDArray[Any], offset: NDArray[Any] | None) -> QuantizedTensor:
    quantized_dtype = data.data_type.name
    zero_point = None
    if offset is not None and offset.any():
        with np.errstate(invalid="ignore"):
            zero_point = np.ascontiguousarray(offset.astype(QUANTIZED_DTYPES[quantized_dtype][1]))
        if not (np.array_equal(zero_point, offset) and _fits(zero_point, quantized_dtype)):
            raise UnsupportedForm(f"zero points that are not {quantized_dtype}")
    return QuantizedTensor(data.shape, packed_bytes(data), np.ascontiguousarray(scale), zero_point, quantized_dtype)


def _fits(zero_point: NDArray[Any], quantized_dtype: str) -> bool:
    packed = pack_codes(zero_point, quantized_dtype)
    return np.array_equal(unpack_codes(packed, zero_point.shape, quantized_dtype), zero_point)


def describe(types: Types) -> str:
    """From the parameters' types."""
    data = types.get("quantized_data") or types.get("data") or types.get("nonzero_data")
    scales = prod(types["scale"][1]) if "scale" in types else 1
    return f"quantized {data[0].name if data else ''}, {scales} {'scale' if scales == 1 else 'scales'}"
