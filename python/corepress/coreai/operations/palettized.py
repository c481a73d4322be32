"""``lut_to_dense``, ``lut_to_sparse_with_bitmask`` and `PalettizedTensor`."""

from __future__ import annotations

from math import prod

import numpy as np

from ...tensors import PalettizedTensor, QuantizedTensor
from .form import (
    BUILD_SPARSE,
    LUT_TO_DENSE,
    LUT_TO_SPARSE,
    SPARSE_TO_DENSE,
    Constant,
    Form,
    Node,
    axis_of,
    packed,
    values_of,
)
from .shift_scale import scaled, shift_scale


def lower(tensor: PalettizedTensor) -> Form:
    """Indices in the weight's shape and a table per group; scales after the look-up."""
    indices = packed(f"uint{tensor.nbits}", tensor.index_shape, tensor.indices)
    lut = _table(tensor)
    form = Form(LUT_TO_DENSE, (indices, lut, axis_of(tensor.vector_axis)), lut.type, tensor.shape)
    return form if tensor.scale is None else shift_scale(form, tensor.scale)


def lower_sparse(values: PalettizedTensor, mask: Constant) -> Form:
    """The values of a sparse tensor, put at the ones of a mask; scales after that."""
    indices = packed(f"uint{values.nbits}", values.shape, values.indices)
    if prod(values.group_counts) == 1:  # the form that coreai-opt writes
        lut = _table(values, (1, *values.lut.shape[-2:]))
        looked_up = Form(LUT_TO_DENSE, (indices, lut, axis_of(None)), lut.type, values.shape)
        sparse = Form(BUILD_SPARSE, (looked_up, mask), lut.type, mask.shape, True)
    else:
        lut = _table(values)
        places = Form(BUILD_SPARSE, (indices, mask), indices.type, mask.shape, True)
        sparse = Form(LUT_TO_SPARSE, (places, lut, axis_of(None)), lut.type, mask.shape, True)
    form = Form(SPARSE_TO_DENSE, (sparse,), lut.type, mask.shape)
    return form if values.scale is None else shift_scale(form, values.scale)


def _table(tensor: PalettizedTensor, shape: tuple[int, ...] | None = None) -> Node:
    """The tables, those of a quantized lut scaled before the look-up; in `shape` if that is given."""
    lut, shape = tensor.lut, tensor.lut.shape if shape is None else shape
    if not isinstance(lut, QuantizedTensor):
        return values_of(lut.reshape(shape))
    assert isinstance(lut.data, np.ndarray)
    extra = (1,) * (len(shape) - 2)
    scales = lut.scale.shape if shape == lut.shape else (*extra, *lut.scale.shape[-2:])
    return scaled(packed(lut.quantized_dtype, shape, lut.data), lut, shape=scales)
