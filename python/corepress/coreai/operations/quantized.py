"""``blockwise_shift_scale`` and `QuantizedTensor`."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from ...tensors import PalettizedTensor, QuantizedTensor, pack_codes, unpack_codes
from ..format.data_types import BY_NAME
from . import palettized
from .form import BUILD_SPARSE, CAST, SPARSE_TO_DENSE, Constant, Form, Node, packed
from .shift_scale import scaled

# Types of which `build_sparse_with_bitmask` takes values; it refuses the others.
_SPARSE_CODES = ("int8", "uint8", "uint4", "uint2", "float8_e4m3fn", "float8_e5m2")


def lower(tensor: QuantizedTensor) -> Form:
    """One scale and zero point per block, of stored codes or of those that a palette yields."""
    if isinstance(tensor.data, PalettizedTensor):
        return scaled(palettized.lower(tensor.data), tensor)
    return scaled(packed(tensor.quantized_dtype, tensor.shape, tensor.data), tensor)


def lower_sparse(values: QuantizedTensor, mask: Constant) -> Form:
    """The values of a sparse tensor, put at the ones of a mask, then scaled."""
    values = _without_zero_point(values)
    if isinstance(values.data, PalettizedTensor):
        _require_no_zero_point(values)
        return scaled(palettized.lower_sparse(values.data, mask), values)
    codes: Node = packed(values.quantized_dtype, values.shape, values.data)
    if values.zero_point is not None:
        _require_no_zero_point(values, most=1)
        codes = scaled(codes, values, shape=(1,))  # before they are put in place: what is pruned stays zero
        return _in_place(codes, mask)
    if codes.type.name not in _SPARSE_CODES:
        codes = Form(CAST, (codes,), BY_NAME[np.dtype(values.dtype).name], codes.shape)  # exact
    return scaled(_in_place(codes, mask), values)


def _in_place(values: Node, mask: Constant) -> Form:
    sparse = Form(BUILD_SPARSE, (values, mask), values.type, mask.shape, True)
    return Form(SPARSE_TO_DENSE, (sparse,), values.type, mask.shape)


def _without_zero_point(values: QuantizedTensor) -> QuantizedTensor:
    """The same values in a signed type, if one zero point is for all and what remains without it fits."""
    point = values.zero_point
    if point is None or not isinstance(values.data, np.ndarray):
        return values
    if not point.any():
        return replace(values, zero_point=None)
    if not np.all(point == point.flat[0]):
        return values
    signed, bits = values.quantized_dtype.removeprefix("u"), values.nbits
    codes = unpack_codes(values.data, values.shape, values.quantized_dtype).astype(np.int16) - int(point.flat[0])
    if codes.size and not -(1 << (bits - 1)) <= codes.min() <= codes.max() < 1 << (bits - 1):
        return values
    data = pack_codes(codes.astype(np.int8), signed)
    return replace(values, data=data, zero_point=None, quantized_dtype=signed)


def _require_no_zero_point(values: QuantizedTensor, most: int = 0) -> None:
    if values.zero_point is not None and (values.zero_point.any() and prod(values.scale.shape) > most):
        raise ValueError(
            "lower: sparse values with zero points have no form in Core AI unless one scale is for all; "
            "quantize with mode 'linear_symmetric', or granularity 'per_tensor'"
        )
