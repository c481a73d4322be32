"""``blockwise_shift_scale``: the scales and zero points of codes, or of floats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...tensors import QuantizedTensor, pack_codes, unpack_codes
from ..format.data_types import BY_NAME, DataType
from .form import CAST, SHIFT_SCALE, Constant, Form, Node, codes_of, values_of, zeros

POWERS_OF_TWO = "float8_e8m0fnu"
_BIAS = 127
# Codes whose scales may not be of this type.
_NO_SCALE = {"float4_e2m1fn": ("float32", "float64")}


def shift_scale(
    data: Node,
    scale: NDArray[Any],
    zero_point: NDArray[Any] | None = None,
    scale_dtype: str | None = None,
    decoded_dtype: np.dtype[Any] | None = None,
) -> Form:
    """Scale codes, less their zero points, or floats.

    Parameters
    ----------
    data : Constant or Form
        What is scaled.
    scale : numpy.ndarray of float
        One per block along each axis; powers of two in float32 with a `scale_dtype`.
    zero_point : numpy.ndarray, optional
        In the scale's shape; whole numbers that the codes' type holds.
    scale_dtype : {"float8_e8m0fnu"}, optional
        How powers of two are stored; then `decoded_dtype` is the type of the result.

    Returns
    -------
    Form
        Of the scale's dtype, or `decoded_dtype`.
    """
    if scale_dtype is not None and data.type.is_float and decoded_dtype != np.float32:
        # The run-time has no kernel for these; powers of two are exact in the type of the result too.
        scale, scale_dtype = _exact(scale, decoded_dtype), None
    if scale_dtype is None:
        result, factors = BY_NAME[scale.dtype.name], values_of(scale)
    else:
        assert decoded_dtype is not None
        result, factors = BY_NAME[decoded_dtype.name], exponents_of(scale)
    if factors.type.name in _NO_SCALE.get(data.type.name, ()):
        data = Form(CAST, (data,), result, data.shape)  # exact, and scaled as floats
    if zero_point is None:
        offset = zeros(data.type.name, scale.shape)
    else:
        offset = codes_of(_whole(zero_point, data.type), data.type.name)
    return Form(SHIFT_SCALE, (data, factors, offset, zeros(result.name, scale.shape)), result, data.shape)


def _exact(scale: NDArray[Any], dtype: np.dtype[Any] | None) -> NDArray[Any]:
    converted = scale.astype(dtype)
    if not np.array_equal(converted.astype(np.float32), scale):
        raise ValueError(f"lower: {dtype} does not hold all scales of sparse values; use no scale_dtype")
    return converted


def scaled(data: Node, tensor: QuantizedTensor, *, shape: tuple[int, ...] | None = None) -> Form:
    """Apply the scales and zero points of a quantized tensor to its codes.

    `shape` is that of the scales where it is not the tensor's own, in the same order of elements.
    """
    scale = tensor.scale if shape is None else tensor.scale.reshape(shape)
    zero_point = tensor.zero_point
    if zero_point is not None and shape is not None:
        zero_point = zero_point.reshape(shape)
    decoded = np.dtype(tensor.dtype)
    return shift_scale(data, scale, zero_point, tensor.scale_dtype, decoded)


def exponents_of(scale: NDArray[Any]) -> Constant:
    """Powers of two as the exponents that e8m0 stores.

    Raises
    ------
    ValueError
        If a scale is no power of two, or beyond 2^-127 to 2^127.
    """
    mantissas, exponents = np.frexp(np.asarray(scale, np.float64))
    if not (np.all(mantissas == 0.5) and np.all(np.abs(exponents - 1) <= _BIAS)):
        raise ValueError(f"lower: scales of {POWERS_OF_TWO} must be powers of two from 2^-127 to 2^127")
    return Constant(BY_NAME[POWERS_OF_TWO], scale.shape, (exponents - 1 + _BIAS).astype(np.uint8).reshape(-1))


def powers_of(constant: Constant) -> NDArray[np.float32]:
    """The scales that e8m0 exponents are; NaN for 255."""
    exponents = np.minimum(constant.data, 2 * _BIAS).astype(np.int32) - _BIAS
    powers = np.ldexp(np.float64(1), exponents).astype(np.float32)
    powers[constant.data > 2 * _BIAS] = np.nan
    return powers.reshape(constant.shape)


def _whole(zero_point: NDArray[Any], data_type: DataType) -> NDArray[Any]:
    """Zero points as integers of the codes' type.

    Raises
    ------
    ValueError
        If they are not whole numbers that it holds.
    """
    if not data_type.is_integer:
        raise ValueError(f"lower: codes of {data_type.name} have no zero points")
    integers = zero_point.astype(np.int8 if data_type.name.startswith("int") else np.uint8)
    packed = pack_codes(np.ascontiguousarray(integers), data_type.name)
    if not np.array_equal(unpack_codes(packed, zero_point.shape, data_type.name), zero_point):
        raise ValueError(f"lower: zero points must be whole numbers that {data_type.name} holds")
    return np.ascontiguousarray(integers)
