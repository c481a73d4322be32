"""``constexpr_affine_dequantize``, ``constexpr_[sparse_]blockwise_shift_scale`` and `QuantizedTensor`."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...specs import Quantize
from ...tensors import (
    CORE_ML_DTYPES,
    QUANTIZED_DTYPES,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
    Support,
    pack_codes,
    unpack_codes,
)
from ...tensors.blocks import common_grid, refine, require_divisors, shift_scale
from ..format.values import Tensor
from .form import OperationForm, Output, Parameters, Types, UnsupportedForm, packed_bytes, parameter, scalar
from .ios18 import (
    BLOCKWISE_SHIFT_SCALE,
    SPARSE_BLOCKWISE_SHIFT_SCALE,
    blockwise_shift_scale,
    lut_to_dense,
    lut_to_sparse,
    quantized_data,
    sparse_blockwise_shift_scale,
    sparse_to_dense,
)
from .limits import require_small_tables

__all__ = ["BLOCKWISE_SHIFT_SCALE", "SPARSE_BLOCKWISE_SHIFT_SCALE"]

AFFINE_DEQUANTIZE = "constexpr_affine_dequantize"


def needs_core_ai(spec: Quantize) -> str | None:
    """What no operation of Core ML can express in the spec, and what to use instead."""
    if spec.dtype not in CORE_ML_DTYPES:
        return f"dtype {spec.dtype!r} is for Core AI (.aimodel); use {', '.join(map(repr, CORE_ML_DTYPES))} for Core ML"
    if spec.scale_dtype is not None:
        return f"scale_dtype {spec.scale_dtype!r} is for Core AI (.aimodel); leave it out for Core ML"
    return None


def require_core_ml(tensor: QuantizedTensor) -> None:
    """ValueError for a tensor that no operation of Core ML can express."""
    if tensor.quantized_dtype not in CORE_ML_DTYPES:
        raise ValueError(f"lower: {tensor.quantized_dtype} is for Core AI (.aimodel); Core ML has no operation for it")
    if tensor.scale_dtype is not None:
        raise ValueError(f"lower: {tensor.scale_dtype} scales are for Core AI (.aimodel); Core ML has none")


def needs_ios18(spec: Quantize) -> tuple[str, str] | None:
    """What the iOS 16 form cannot express in the spec, and what to use instead."""
    if QUANTIZED_DTYPES[spec.dtype][0] < 8:
        return f"dtype {spec.dtype!r}", f"use {spec.dtype.replace('4', '8')!r}"
    if spec.granularity == "per_block":
        return "granularity 'per_block'", "use 'per_channel'"
    return None


def lower_ios16(tensor: QuantizedTensor) -> OperationForm:
    """One scale and zero point for the tensor, or one per entry of one axis."""
    if isinstance(tensor.data, PalettizedTensor):
        raise ValueError(f"{AFFINE_DEQUANTIZE}: palettized data needs specification version 9")
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
            "quantized_data": quantized_data(tensor),
            "zero_point": Tensor.of(zero_point.reshape(shape)),
            "scale": Tensor.of(tensor.scale.reshape(shape)),
            "axis": scalar(axes[0] if axes else 0, np.int32),
        },
    )


def lower_ios18(tensor: QuantizedTensor) -> OperationForm:
    """One scale, and where there are zero points one offset, per block; of palettized data, of the tables."""
    if isinstance(tensor.data, PalettizedTensor):
        return lut_to_dense(tensor.data, _scaled_lut(tensor, tensor.data))
    return blockwise_shift_scale(quantized_data(tensor), tensor.scale, tensor.zero_point, tensor.quantized_dtype)


def lower_ios26(tensor: QuantizedTensor) -> OperationForm:
    """The same; palettized data is scaled after the look-up."""
    if not isinstance(tensor.data, PalettizedTensor):
        return lower_ios18(tensor)
    codes = lut_to_dense(tensor.data, Tensor.of(tensor.data.table))
    return blockwise_shift_scale(Output(codes), tensor.scale, tensor.zero_point, tensor.quantized_dtype)


def lower_sparse(values: QuantizedTensor, mask: Tensor) -> OperationForm:
    """The values of a sparse tensor."""
    if isinstance(values.data, PalettizedTensor):
        sparse = lut_to_sparse(values.data, mask, _scaled_lut(values, values.data))
        return sparse_to_dense(Output(sparse, 1), Output(sparse, 0))
    return sparse_to_dense(Output(sparse_blockwise_shift_scale(values, mask), 1), mask)


def _scaled_lut(tensor: QuantizedTensor, data: PalettizedTensor) -> Output:
    """Tables of integers, repeated so that each block of the scale has one, with the scale applied to them."""
    grid = common_grid(tensor.full_shape, data.group_counts, tensor.scale.shape)
    require_small_tables(tensor.full_shape, data.group_counts, grid, data.nbits, "scales of palettized codes")
    scale = tensor.scale[..., None, None]
    zero_point = None if tensor.zero_point is None else tensor.zero_point[..., None, None]
    lut = Tensor.of(np.ascontiguousarray(refine(data.table, grid)))
    return Output(blockwise_shift_scale(lut, scale, zero_point, tensor.quantized_dtype))


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
    # Here there is always one: that it is all zero is how a symmetric encoding is written.
    return _tensor(data, np.broadcast_to(scale, shape), np.broadcast_to(offset, shape) if offset.any() else None)


def _along(axis: int, data: Tensor, values: Tensor) -> NDArray[Any]:
    shape = [1] * len(data.shape)
    if values.shape:
        shape[axis] = values.count
        if values.shape != (data.shape[axis],):
            raise FormatError(f"has parameters of shape {values.shape} along axis {axis} of shape {data.shape}")
    return values.data.reshape(shape)


def lift_blockwise_shift_scale(parameters: Parameters) -> QuantizedTensor | PalettizedTensor | Tensor:
    """Read the iOS 18 form; scaled after a look-up, it is a palettized tensor with scales or a quantized table.

    Plain floats, such as tables that coremltools has scaled this way, are multiplied out.
    """
    data = parameters.get("data")
    scale, offset = _lift_scale(parameters)
    if isinstance(data, PalettizedTensor):
        return _lift_scaled_palette(data, scale, offset)
    data = parameter(parameters, "data", "float16", "float32", *CORE_ML_DTYPES)
    if data.data_type.name in CORE_ML_DTYPES:
        return _tensor(data, scale, offset)
    require_divisors(data.shape, scale.shape)
    offsets = None if offset is None else refine(offset, data.shape)
    return Tensor.of(shift_scale(data.data, refine(scale, data.shape), offsets))


def lift_sparse(parameters: Parameters) -> SparseTensor:
    """Read ``constexpr_sparse_blockwise_shift_scale``."""
    mask, data = parameter(parameters, "data_mask", "uint1"), parameters.get("nonzero_data")
    scale, offset = _lift_scale(parameters)
    support = Support(mask.shape, packed_bytes(mask))
    if isinstance(data, PalettizedTensor):
        if not support.same_as(data.support):
            raise FormatError("its data_mask is not the mask of its nonzero_data")
        return SparseTensor(mask.shape, support.mask, _lift_scaled_palette(data, scale, offset))
    data = parameter(parameters, "nonzero_data", "float16", "float32", *CORE_ML_DTYPES)
    if data.data_type.name not in CORE_ML_DTYPES:
        raise UnsupportedForm(f"scaled values of {data.data_type.name}")
    return SparseTensor(mask.shape, support.mask, _tensor(data, scale, offset, support))


def _lift_scale(parameters: Parameters) -> tuple[NDArray[Any], NDArray[Any] | None]:
    scale = parameter(parameters, "scale", "float16", "float32")
    if "offset" not in parameters:
        return scale.data, None
    offset = parameter(parameters, "offset", "float16", "float32", *CORE_ML_DTYPES)
    if offset.shape != scale.shape:
        raise FormatError(f"its offset has shape {offset.shape}, its scale {scale.shape}")
    if offset.data_type.name in CORE_ML_DTYPES:
        return scale.data, unpack_codes(packed_bytes(offset), offset.shape, offset.data_type.name)
    return scale.data, offset.data


def _lift_scaled_palette(
    data: PalettizedTensor, scale: NDArray[Any], offset: NDArray[Any] | None
) -> QuantizedTensor | PalettizedTensor:
    if data.dtype.kind == "f":
        if data.scale is not None or offset is not None or data.dtype != scale.dtype:
            raise UnsupportedForm("palettized floats with an offset, several scales, or scales of another type")
        return replace(data, scale=np.ascontiguousarray(scale))
    quantized_dtype = data.dtype.name
    zero_point = _zero_point(offset, quantized_dtype)
    if scale.shape == data.group_counts:  # a scale for each table, which is then a quantized one
        codes = np.ascontiguousarray(data.table).view(np.uint8).reshape(-1)
        offsets = None if zero_point is None else zero_point[..., None, None]
        lut = QuantizedTensor(data.lut.shape, codes, scale[..., None, None], offsets, quantized_dtype)
        return replace(data, lut=lut)
    return QuantizedTensor(data.shape, data, np.ascontiguousarray(scale), zero_point, quantized_dtype, data.support)


def _tensor(
    data: Tensor, scale: NDArray[Any], offset: NDArray[Any] | None, support: Support | None = None
) -> QuantizedTensor:
    quantized_dtype = data.data_type.name
    zero_point, scale = _zero_point(offset, quantized_dtype), np.ascontiguousarray(scale)
    return QuantizedTensor(data.shape, packed_bytes(data), scale, zero_point, quantized_dtype, support)


def _zero_point(offset: NDArray[Any] | None, quantized_dtype: str) -> NDArray[Any] | None:
    """In the codes' type where that holds it."""
    if offset is None:
        return None
    with np.errstate(invalid="ignore"):
        integers = np.ascontiguousarray(offset.astype(QUANTIZED_DTYPES[quantized_dtype][1]))
    if np.array_equal(integers, offset) and _fits(integers, quantized_dtype):
        return integers
    return np.ascontiguousarray(offset if offset.dtype.kind == "f" else offset.astype(np.float32))


def _fits(zero_point: NDArray[Any], quantized_dtype: str) -> bool:
    packed = pack_codes(zero_point, quantized_dtype)
    return np.array_equal(unpack_codes(packed, zero_point.shape, quantized_dtype), zero_point)


def describe(types: Types) -> str:
    """From the parameters' types."""
    data = types.get("quantized_data") or types.get("data") or types.get("nonzero_data")
    scales = prod(types["scale"][1]) if "scale" in types else 1
    what = f"quantized {data[0].name}" if data and data[0].name in CORE_ML_DTYPES else "scaled"
    return f"{what}, {scales} {'scale' if scales == 1 else 'scales'}"
