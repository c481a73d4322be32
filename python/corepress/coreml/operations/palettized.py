"""``constexpr_lut_to_dense`` and `PalettizedTensor`."""

from __future__ import annotations

import dataclasses
from math import prod

import numpy as np

from ...errors import FormatError
from ...kernels import pack_bits
from ...specs import Palettize
from ...tensors import PalettizedTensor
from ..values import Tensor
from .form import OperationForm, Parameters, Types, UnsupportedForm, dense_shape, packed_bytes, parameter, scalar

LUT_TO_DENSE = "constexpr_lut_to_dense"
LUT_TO_SPARSE = "constexpr_lut_to_sparse"


def needs_ios18(spec: Palettize) -> tuple[str, str] | None:
    """What in the spec the iOS 16 form cannot express, and what to use instead."""
    if spec.nbits == 3:
        return "nbits 3", "use nbits 4"
    if spec.cluster_dim > 1:
        return f"cluster_dim {spec.cluster_dim}", "use 1"
    if spec.granularity == "per_grouped_channel":
        return "granularity 'per_grouped_channel'", "use 'per_tensor'"
    return None


def lower_ios16(tensor: PalettizedTensor) -> OperationForm:
    """Packed indices, a table of rank 1, and the shape."""
    if tensor.cluster_dim > 1:
        raise ValueError(f"{LUT_TO_DENSE}: vectors need specification version 9")
    if max(tensor.group_counts, default=1) > 1:
        raise ValueError(f"{LUT_TO_DENSE}: groups need specification version 9")
    if tensor.nbits == 3:
        tensor = widen(tensor, 4)
    return OperationForm(
        LUT_TO_DENSE,
        {
            "indices": Tensor.of(tensor.indices),
            "lut": Tensor.of(tensor.lut.reshape(-1)),
            "shape": Tensor.of(np.array(tensor.shape, np.uint32)),
        },
    )


def widen(tensor: PalettizedTensor, nbits: int) -> PalettizedTensor:
    """The same values with wider indices; new entries repeat the largest."""
    fill = [(0, 0)] * tensor.lut.ndim
    fill[-2] = (0, 2**nbits - 2**tensor.nbits)
    lut = np.pad(tensor.lut, fill, "edge")
    return dataclasses.replace(tensor, indices=pack_bits(tensor.codes(), nbits), lut=lut, nbits=nbits)


def lower_ios18(tensor: PalettizedTensor) -> OperationForm:
    """Indices of a sub-byte type, in the weight's shape or one per vector, and a table per group."""
    parameters = {
        "indices": Tensor.packed(f"uint{tensor.nbits}", tensor.index_shape, tensor.indices),
        "lut": Tensor.of(tensor.lut),
    }
    if tensor.vector_axis is not None:
        parameters["vector_axis"] = scalar(tensor.vector_axis, np.int32)
    return OperationForm(LUT_TO_DENSE, parameters, in_inputs=True)


def lift(parameters: Parameters) -> PalettizedTensor:
    """Read either form."""
    indices, lut = parameter(parameters, "indices"), parameter(parameters, "lut")
    if lut.data_type.name not in ("float16", "float32"):
        raise UnsupportedForm(f"a table of {lut.data_type.name}")
    axis = None
    if "shape" in parameters:
        shape = dense_shape(parameters)
        table = lut.data.reshape((1,) * len(shape) + (lut.count, 1))
        nbits = lut.count.bit_length() - 1
    else:
        if not indices.data_type.name.startswith("uint"):
            raise FormatError(f"its indices are {indices.data_type.name}")
        if len(lut.shape) != len(indices.shape) + 2:
            raise FormatError(f"its lut of shape {lut.shape} does not have two axes more than its indices")
        shape, table, nbits = indices.shape, lut.data, indices.data_type.nbits
        if lut.shape[-1] > 1:
            axis = _vector_axis(parameters, len(shape))
            shape = (*shape[:axis], shape[axis] * lut.shape[-1], *shape[axis + 1 :])
    return PalettizedTensor(shape, packed_bytes(indices), table, nbits, axis)


def _vector_axis(parameters: Parameters, rank: int) -> int:
    axis = int(parameter(parameters, "vector_axis", "int32").data.reshape(-1)[0])
    if not -rank <= axis < rank:
        raise FormatError(f"its vector_axis {axis} is out of range for rank {rank}")
    return axis % rank


def describe(types: Types) -> str:
    """From the parameters' types."""
    shape = types["lut"][1] if "lut" in types else ()
    entries, groups = (shape[-1], 1) if len(shape) == 1 else (shape[-2], prod(shape[:-2])) if shape else (1, 1)
    grouped = f", {groups} groups" if groups > 1 else ""
    vectors = f", vectors of {shape[-1]}" if len(shape) > 1 and shape[-1] > 1 else ""
    return f"palettized {max(entries, 1).bit_length() - 1} bits{grouped}{vectors}"
