"""``constexpr_lut_to_dense``, ``constexpr_lut_to_sparse`` and `PalettizedTensor`."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...kernels import pack_bits
from ...specs import Palettize, in_bits
from ...tensors import CORE_ML_DTYPES, PalettizedTensor, QuantizedTensor, SparseTensor, Support
from ...tensors.blocks import common_grid, fold_scale
from ..format.values import Tensor
from .form import OperationForm, Output, Parameters, Types, UnsupportedForm, dense_shape, packed_bytes, parameter
from .ios18 import (
    LUT_TO_DENSE,
    LUT_TO_SPARSE,
    blockwise_shift_scale,
    lut_to_dense,
    lut_to_sparse,
    quantized_data,
    sparse_to_dense,
)
from .limits import require_small_tables

__all__ = ["LUT_TO_DENSE", "LUT_TO_SPARSE"]


# A code of one bit encodes a whole vector: without a limit, a small file could ask for all memory.
_LONGEST_VECTOR = 256
MOST_WEIGHTS_PER_BYTE = 8 * _LONGEST_VECTOR


def needs_core_ai(spec: Palettize) -> str | None:
    """What no operation of Core ML can express in the spec, and what to use instead."""
    if spec.lut_dtype is None or spec.lut_dtype in CORE_ML_DTYPES:
        return None
    return f"lut_dtype {spec.lut_dtype!r} is for Core AI (.aimodel); use 'int8' or 'uint8' for Core ML"


def needs_ios18(spec: Palettize) -> tuple[str, str] | None:
    """What the iOS 16 form cannot express in the spec, and what to use instead."""
    if spec.nbits == 3:
        return "nbits 3", "use nbits 4"
    if spec.cluster_dim > 1:
        return f"cluster_dim {spec.cluster_dim}", "use 1"
    if spec.granularity == "per_grouped_channel":
        return "granularity 'per_grouped_channel'", "use 'per_tensor'"
    if spec.enable_per_channel_scale:
        return "enable_per_channel_scale", "leave it out"
    if spec.lut_dtype is not None:
        return f"lut_dtype {spec.lut_dtype!r}", "leave it out"
    return None


def lower_ios16(tensor: PalettizedTensor) -> OperationForm:
    """Packed indices, a table of rank 1, and the shape."""
    if tensor.cluster_dim > 1:
        raise ValueError(f"{LUT_TO_DENSE}: vectors need specification version 9")
    if max(tensor.group_counts, default=1) > 1:
        raise ValueError(f"{LUT_TO_DENSE}: groups need specification version 9")
    if tensor.scale is not None or not isinstance(tensor.lut, np.ndarray):
        raise ValueError(f"{LUT_TO_DENSE}: scales and quantized tables need specification version 9")
    if tensor.nbits == 3:
        tensor = widen(tensor, 4)
    return OperationForm(
        LUT_TO_DENSE,
        {
            "indices": Tensor.of(tensor.indices),
            "lut": Tensor.of(tensor.table.reshape(-1)),
            "shape": Tensor.of(np.array(tensor.shape, np.uint32)),
        },
    )


def widen(tensor: PalettizedTensor, nbits: int) -> PalettizedTensor:
    """The same values with wider indices; new entries repeat the largest."""
    table = tensor.table
    fill = [(0, 0)] * table.ndim
    fill[-2] = (0, 2**nbits - 2**tensor.nbits)
    return replace(tensor, indices=pack_bits(tensor.codes(), nbits), lut=np.pad(table, fill, "edge"), nbits=nbits)


def lower_ios18(tensor: PalettizedTensor) -> OperationForm:
    """Indices of a sub-byte type in the weight's shape, and a table per group; what scales does so before."""
    return lut_to_dense(tensor, lut_of(tensor))


def lower_ios26(tensor: PalettizedTensor) -> OperationForm:
    """The same; what scales does so after the look-up."""
    lut = tensor.lut
    if isinstance(lut, QuantizedTensor) and lut.scale.shape[-2:] == (1, 1):
        form = lut_to_dense(tensor, quantized_data(lut))
        zero_point = None if lut.zero_point is None else lut.zero_point[..., 0, 0]
        form = blockwise_shift_scale(Output(form), lut.scale[..., 0, 0], zero_point, lut.quantized_dtype)
    else:
        form = lut_to_dense(tensor, lut_of(replace(tensor, scale=None)))
    return form if tensor.scale is None else blockwise_shift_scale(Output(form), tensor.scale)


def lower_sparse(values: PalettizedTensor, mask: Tensor) -> OperationForm:
    """The values of a sparse tensor; what scales does so before the look-up."""
    sparse = lut_to_sparse(values, mask, lut_of(values))
    return sparse_to_dense(Output(sparse, 1), Output(sparse, 0))


def lut_of(tensor: PalettizedTensor) -> Tensor | Output:
    """The table as a parameter: with the scale in it, a table for each block of the scale."""
    lut = tensor.lut
    if tensor.scale is not None and tensor.cluster_dim > 1:
        raise ValueError(f"{LUT_TO_DENSE}: scales of vectors need specification version 10")
    if tensor.scale is not None:
        grid = common_grid(tensor.full_shape, tensor.group_counts, tensor.scale.shape)
        require_small_tables(tensor.full_shape, tensor.group_counts, grid, tensor.nbits, "per-channel scales")
        return Tensor.of(fold_scale(tensor.table, tensor.scale, tensor.full_shape))
    if isinstance(lut, QuantizedTensor):
        return Output(blockwise_shift_scale(quantized_data(lut), lut.scale, lut.zero_point, lut.quantized_dtype))
    return Tensor.of(lut)


def lift(parameters: Parameters) -> PalettizedTensor:
    """Read either form."""
    indices, lut = parameter(parameters, "indices"), _lift_lut(parameters)
    if "shape" in parameters:
        shape = dense_shape(parameters)
        if not isinstance(lut, np.ndarray):
            raise FormatError("has a computed lut together with a shape")
        table = lut.reshape((1,) * len(shape) + (lut.size, 1))
        return PalettizedTensor(shape, packed_bytes(indices), table, lut.size.bit_length() - 1)
    _require_indices("indices", indices, lut, len(indices.shape))
    shape, axis = indices.shape, None
    if lut.shape[-1] > _LONGEST_VECTOR:
        raise UnsupportedForm(f"vectors of {lut.shape[-1]} elements")
    if lut.shape[-1] > 1:
        axis = _vector_axis(parameters, len(shape))
        shape = (*shape[:axis], shape[axis] * lut.shape[-1], *shape[axis + 1 :])
    return PalettizedTensor(shape, packed_bytes(indices), lut, indices.data_type.nbits, axis)


def _vector_axis(parameters: Parameters, rank: int) -> int:
    axis = int(parameter(parameters, "vector_axis", "int32").data.reshape(-1)[0])
    if not -rank <= axis < rank:
        raise FormatError(f"its vector_axis {axis} is out of range for rank {rank}")
    return axis % rank


def lift_sparse(parameters: Parameters) -> SparseTensor:
    """Read ``constexpr_lut_to_sparse``."""
    mask, indices = parameter(parameters, "indices_mask", "uint1"), parameter(parameters, "indices_nonzero_data")
    lut = _lift_lut(parameters)
    _require_indices("indices_nonzero_data", indices, lut, len(mask.shape))
    if lut.shape[-1] > 1:
        raise UnsupportedForm("a sparse table of vectors")
    support = Support(mask.shape, packed_bytes(mask))
    nbits = indices.data_type.nbits
    values = PalettizedTensor(indices.shape, packed_bytes(indices), lut, nbits, support=support)
    return SparseTensor(mask.shape, support.mask, values)


def _lift_lut(parameters: Parameters) -> NDArray[Any] | QuantizedTensor:
    lut = parameters.get("lut")
    if isinstance(lut, QuantizedTensor) and isinstance(lut.data, np.ndarray):
        return lut
    stored = parameter(parameters, "lut")
    if stored.data_type.name not in ("float16", "float32", "int8", "uint8"):
        raise FormatError(f"its lut must be float16, float32, int8 or uint8, not {stored.data_type.name}")
    return stored.data


def _require_indices(name: str, indices: Tensor, lut: NDArray[Any] | QuantizedTensor, rank: int) -> None:
    if not indices.data_type.name.startswith("uint"):
        raise FormatError(f"its {name} are {indices.data_type.name}")
    if len(lut.shape) != rank + 2:
        raise FormatError(f"its lut of shape {lut.shape} does not have two axes more than its indices")


def describe(types: Types) -> str:
    """From the parameters' types."""
    shape = types["lut"][1] if "lut" in types else ()
    codes = types.get("indices") or types.get("indices_nonzero_data")
    entries, groups = (shape[-1], 1) if len(shape) == 1 else (shape[-2], prod(shape[:-2])) if shape else (1, 1)
    nbits = max(entries, 1).bit_length() - 1 if shape or codes is None else codes[0].nbits
    grouped = f", {groups} groups" if groups > 1 else ""
    vectors = f", vectors of {shape[-1]}" if len(shape) > 1 and shape[-1] > 1 else ""
    return f"palettized {in_bits(nbits)}{grouped}{vectors}"
