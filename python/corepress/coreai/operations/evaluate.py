"""What a chain of operations yields, in the arithmetic of Core AI's run-time: for forms without a compressed tensor."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._core import unpack_bits
from ...tensors import ones_of
from ...tensors.blocks import blocks, spread
from ..format.data_types import DataType, array_of, dtype_of
from .form import (
    BUILD_SPARSE,
    CAST,
    LUT_TO_DENSE,
    LUT_TO_SPARSE,
    SHIFT_SCALE,
    SPARSE_TO_DENSE,
    Constant,
    Form,
    Node,
    UnsupportedForm,
)
from .shift_scale import POWERS_OF_TWO, powers_of


def evaluate(node: Node) -> NDArray[Any]:
    """Compute what a chain yields.

    Parameters
    ----------
    node : Constant or Form
        The chain.

    Returns
    -------
    numpy.ndarray
        In the type of its result; integers, and floats of 8 and fewer bits, in the smallest type that NumPy has and
        that holds them exactly. Sparse tensors are given densely.

    Raises
    ------
    UnsupportedForm
        If it has an operation that is not known here.
    """
    if isinstance(node, Constant):
        return values_of_constant(node)
    if node.operation not in _EVALUATE:
        raise UnsupportedForm(f"operation {node.operation}")
    return _EVALUATE[node.operation](node)


def values_of_constant(constant: Constant) -> NDArray[Any]:
    """The elements of a constant, one each; floats of 8 and fewer bits as float32."""
    count, data_type = prod(constant.shape), constant.type
    if constant.is_zero:
        return np.broadcast_to(np.zeros((), _dtype(data_type)), constant.shape)
    if data_type.packed:
        codes = np.empty(count, np.uint8)
        signed = data_type.name.startswith("int")
        unpack_bits(np.ascontiguousarray(constant.data), data_type.nbits, signed, False, count, codes)
        if data_type.is_integer:
            return codes.view(np.int8 if signed else np.uint8).reshape(constant.shape)
        return _FP4[codes].reshape(constant.shape)
    if data_type.name == POWERS_OF_TWO:
        return powers_of(constant)
    if data_type.name in _FP8:
        import ml_dtypes

        values = constant.data.view(getattr(ml_dtypes, _FP8[data_type.name]))
        return np.asarray(values.astype(np.float32)).reshape(constant.shape)
    return array_of(data_type, constant.shape, constant.data)


_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
_FP8 = {"float8_e4m3fn": "float8_e4m3fn", "float8_e5m2": "float8_e5m2"}


def _dtype(data_type: DataType) -> np.dtype[Any]:
    if data_type.is_float:
        return dtype_of(data_type.name)
    if data_type.is_integer or data_type.name == "bool":
        return data_type.storage
    return np.dtype(np.float32)


def _cast(node: Form) -> NDArray[Any]:
    return evaluate(node.operands[0]).astype(_dtype(node.type))


def _look_up(node: Form) -> NDArray[Any]:
    indices, lut, axis = node.operands
    return _looked_up(evaluate(indices), evaluate(lut), int(np.ravel(evaluate(axis))[0]))


def _looked_up(indices: NDArray[Any], lut: NDArray[Any], axis: int) -> NDArray[Any]:
    rank, length = indices.ndim, lut.shape[-1]
    # The position of each index's table, then of its entry in all of them.
    tables = np.arange(prod(lut.shape[:rank])).reshape(lut.shape[:rank])
    view = np.empty(blocks(indices, lut.shape[:rank]).shape, np.int64)
    view[...] = spread(tables)
    entries = view.reshape(indices.shape) * lut.shape[-2] + indices
    vectors = lut.reshape(-1, length)[entries]
    axis %= rank
    moved = np.moveaxis(vectors, -1, axis + 1)
    shape = (*indices.shape[:axis], indices.shape[axis] * length, *indices.shape[axis + 1 :])
    return np.ascontiguousarray(moved).reshape(shape)


def _shift_scale(node: Form) -> NDArray[Any]:
    data, scale, before, after = (evaluate(operand) for operand in node.operands)
    target = _dtype(node.type)
    exact = np.dtype(np.float32) if target.name == "bfloat16" else target  # bfloat16 is rounded once, at the end
    point, shift, factors = (spread(each.astype(exact)) for each in (before, after, scale))
    with np.errstate(over="ignore", invalid="ignore"):
        values = blocks(np.ascontiguousarray(data).astype(exact), scale.shape)
        if not (before.any() or after.any()):
            result = values * factors
        elif node.operands[0].type.nbits == 8 and (scale.size > 1 or scale.ndim == 1):
            result = values * factors + (shift - point * factors)
        else:
            result = (values - point) * factors + shift
    scaled: NDArray[Any] = result.reshape(node.shape).astype(target)
    return scaled


def _in_place(node: Form) -> NDArray[Any]:
    values, mask = node.operands
    if not isinstance(mask, Constant) or mask.is_zero:
        raise UnsupportedForm("a computed mask")
    given = evaluate(values)
    result = np.zeros(prod(mask.shape), given.dtype)
    result[_ones(mask)] = given
    return result.reshape(mask.shape)


def _ones(mask: Constant) -> NDArray[np.bool_]:
    return ones_of(np.ascontiguousarray(mask.data), prod(mask.shape))


def _look_up_sparse(node: Form) -> NDArray[Any]:
    indices, lut, _ = node.operands
    if not isinstance(indices, Form) or indices.operation != BUILD_SPARSE:
        raise UnsupportedForm("sparse indices that are computed")
    mask, tables = indices.operands[1], evaluate(lut)
    if not isinstance(mask, Constant) or tables.shape[-1] != 1:
        raise UnsupportedForm("a sparse table of vectors")
    values = _looked_up(_in_place(indices), tables, 0).reshape(-1)
    values[~_ones(mask)] = 0
    return values.reshape(mask.shape)


_EVALUATE: dict[str, Callable[[Form], NDArray[Any]]] = {
    CAST: _cast,
    LUT_TO_DENSE: _look_up,
    LUT_TO_SPARSE: _look_up_sparse,
    SHIFT_SCALE: _shift_scale,
    BUILD_SPARSE: _in_place,
    SPARSE_TO_DENSE: lambda node: evaluate(node.operands[0]),
}
