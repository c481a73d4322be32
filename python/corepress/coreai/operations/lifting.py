"""Chains of operations as compressed tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...errors import FormatError
from ...tensors import (
    QUANTIZED_DTYPES,
    CompressedTensor,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
    Support,
    unpack_codes,
)
from ..format.data_types import array_of, dtype_of
from .evaluate import evaluate
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

_FP8 = ("float8_e4m3fn", "float8_e5m2")
_LONGEST_VECTOR = 256  # without a limit, a small file could ask for all memory


@dataclass(frozen=True)
class _Placed:
    """Codes or values that a mask puts in place."""

    support: Support
    values: Lifted


@dataclass(frozen=True)
class _Cast:
    """Codes as floats."""

    codes: Constant
    dtype: str


@dataclass(frozen=True)
class _FloatCodes:
    """A palettized tensor whose table is fp8, until a cast or a scale says what it decodes to."""

    tensor: PalettizedTensor


Lifted: TypeAlias = "Constant | CompressedTensor | NDArray[Any] | _Placed | _Cast | _FloatCodes"


def lift(node: Node) -> CompressedTensor | NDArray[Any]:
    """The compressed tensor that a chain stores; an array where it only computes values that have no such form.

    Parameters
    ----------
    node : Constant or Form
        The chain.

    Raises
    ------
    UnsupportedForm
        If it has an operation that is not known here.
    FormatError
        If its operands contradict each other; the message goes after the weight's name.
    """
    try:
        lifted = _lift(node)
    except UnsupportedForm:
        return evaluate(node)
    except FormatError:
        raise
    except ValueError as error:
        raise FormatError(f"is damaged: {error}") from error
    if isinstance(lifted, Constant) and lifted.type.is_float:
        return _values(lifted)
    if isinstance(lifted, CompressedTensor) and lifted.dtype.kind not in "iu":
        return lifted
    return lifted if isinstance(lifted, np.ndarray) else evaluate(node)


def _lift(node: Node) -> Lifted:
    if isinstance(node, Constant):
        return node
    if node.operation not in _LIFT:
        raise UnsupportedForm(f"operation {node.operation}")
    return _LIFT[node.operation](node)


def _lift_cast(node: Form) -> Lifted:
    data = _lift(node.operands[0])
    if not node.type.is_float:
        raise UnsupportedForm(f"a cast to {node.type.name}")
    if isinstance(data, Constant) and data.type.name in QUANTIZED_DTYPES:
        return _Cast(data, node.type.name)
    if isinstance(data, _FloatCodes):
        return _decoded(data, node.type.name)
    if isinstance(data, PalettizedTensor):
        codes, dtype = _codes_of_table(data), dtype_of(node.type.name)
        return replace(data, lut=replace(codes, scale=codes.scale.astype(dtype)))
    raise UnsupportedForm("a cast")


def _lift_look_up(node: Form) -> Lifted:
    indices, lut, axis = node.operands
    if not isinstance(indices, Constant) or not indices.type.name.startswith("uint"):
        raise UnsupportedForm("computed indices")
    vector = _shape_of(lut)[-1]
    if vector > _LONGEST_VECTOR:
        raise UnsupportedForm(f"vectors of {vector} elements")
    shape, vector_axis = indices.shape, None
    if vector > 1:
        vector_axis = int(np.ravel(evaluate(axis))[0]) % len(shape)
        shape = (*shape[:vector_axis], shape[vector_axis] * vector, *shape[vector_axis + 1 :])
    tensor = PalettizedTensor(shape, _stored(indices), _lift_table(lut), indices.type.nbits, vector_axis)
    return _FloatCodes(tensor) if isinstance(lut, Constant) and lut.type.name in _FP8 else tensor


def _decoded(codes: _FloatCodes, dtype: str) -> PalettizedTensor:
    """The tensor with its table in a type, the scale of which is one."""
    lut = codes.tensor.lut
    assert isinstance(lut, QuantizedTensor)
    return replace(codes.tensor, lut=replace(lut, scale=lut.scale.astype(dtype_of(dtype))))


def _lift_table(node: Node) -> NDArray[Any] | QuantizedTensor:
    lut = _lift(node)
    if isinstance(lut, QuantizedTensor) and isinstance(lut.data, np.ndarray):
        return lut
    if isinstance(lut, np.ndarray):
        return lut
    if isinstance(lut, Constant) and (lut.type.is_float or lut.type.name in ("int8", "uint8")):
        return _values(lut)
    if isinstance(lut, Constant) and lut.type.name in _FP8 and lut.type.name in QUANTIZED_DTYPES:
        return _with_scales_of_one(lut.shape, _stored(lut), lut.type.name)
    raise UnsupportedForm("a computed table")


def _with_scales_of_one(shape: tuple[int, ...], data: NDArray[np.uint8], name: str) -> QuantizedTensor:
    return QuantizedTensor(shape, data, np.ones((1,) * len(shape), np.float32), None, name)


def _codes_of_table(data: PalettizedTensor) -> QuantizedTensor:
    """The table of codes, with a scale of one if it has none."""
    if isinstance(data.lut, QuantizedTensor):
        if np.any(data.lut.scale != 1) or data.lut.zero_point is not None or data.scale is not None:
            raise UnsupportedForm("a cast of scaled values")
        return data.lut
    if data.lut.dtype.kind not in "iu":
        raise UnsupportedForm("a cast of floats")
    stored = np.ascontiguousarray(data.lut).view(np.uint8).reshape(-1)
    return _with_scales_of_one(data.lut.shape, stored, data.lut.dtype.name)


def _lift_look_up_sparse(node: Form) -> Lifted:
    indices, lut, _ = node.operands
    places = _lift(indices)
    if not isinstance(places, _Placed) or not isinstance(places.values, Constant) or _shape_of(lut)[-1] != 1:
        raise UnsupportedForm("sparse indices that are computed, or vectors")
    codes = places.values
    if not codes.type.name.startswith("uint"):
        raise FormatError(f"has indices of {codes.type.name}")
    table, nbits = _lift_table(lut), codes.type.nbits
    values = PalettizedTensor(codes.shape, _stored(codes), table, nbits, support=places.support)
    return _Placed(places.support, values)


def _lift_in_place(node: Form) -> Lifted:
    values, mask = node.operands
    if not isinstance(mask, Constant) or mask.type.name != "uint1":
        raise UnsupportedForm("a computed mask")
    return _Placed(Support(mask.shape, _stored(mask)), _lift(values))


def _lift_dense(node: Form) -> Lifted:
    placed = _lift(node.operands[0])
    if not isinstance(placed, _Placed):
        raise UnsupportedForm("a computed sparse tensor")
    support, values = placed.support, placed.values
    rank = len(support.shape)
    if isinstance(values, Constant) and values.type.is_float:
        return SparseTensor(support.shape, support.mask, _values(values))
    if isinstance(values, PalettizedTensor) and values.support is None:
        table = values.lut
        if isinstance(table, QuantizedTensor):
            scale = table.scale.reshape(*(1,) * (rank - 1), *table.scale.shape)
            point = None if table.zero_point is None else table.zero_point.reshape(scale.shape)
            shape = (*(1,) * (rank - 1), *table.shape)
            table = replace(table, shape=shape, scale=scale, zero_point=point)
        else:
            table = table.reshape(*(1,) * (rank - 1), *table.shape)
        values = replace(values, lut=table, support=support)
    if isinstance(values, QuantizedTensor) and values.support is None:
        if values.scale.size != 1:
            raise UnsupportedForm("scales of sparse values")
        point = None if values.zero_point is None else values.zero_point.reshape((1,) * rank)
        values = replace(values, scale=values.scale.reshape((1,) * rank), zero_point=point, support=support)
    if isinstance(values, PalettizedTensor | QuantizedTensor) and values.dtype.kind not in "iu":
        return SparseTensor(support.shape, support.mask, values)
    return replace(placed, values=values)


def _lift_shift_scale(node: Form) -> Lifted:
    data, (_, factors, before, after) = _lift(node.operands[0]), node.operands
    if not (isinstance(factors, Constant) and isinstance(before, Constant) and isinstance(after, Constant)):
        raise UnsupportedForm("computed scales")
    if not _is_zero(after):
        raise UnsupportedForm("an offset after the scale")
    zero_point = None if before.is_zero else _zero_point(before)
    scales = _Scales(factors, zero_point, node.type.name)
    if isinstance(data, Constant):
        if data.type.name not in QUANTIZED_DTYPES:
            raise UnsupportedForm(f"scaled {data.type.name}")
        return scales.of(data.shape, _stored(data), data.type.name)
    if isinstance(data, _Cast):
        return scales.of(data.codes.shape, _stored(data.codes), data.codes.type.name)
    if isinstance(data, _FloatCodes):
        return _lift_scaled_float_codes(data, scales)
    if isinstance(data, PalettizedTensor):
        return _lift_scaled_palette(data, scales)
    if isinstance(data, SparseTensor) and isinstance(data.values, PalettizedTensor):
        return replace(data, values=_lift_scaled_palette(data.values, scales))
    if isinstance(data, _Placed):
        return _lift_scaled_places(data, scales)
    raise UnsupportedForm("scaled floats")


def _lift_scaled_places(placed: _Placed, scales: _Scales) -> SparseTensor:
    support, values = placed.support, placed.values
    if scales.zero_point is not None:
        raise UnsupportedForm("sparse values with zero points, which move the zeros")
    if isinstance(values, PalettizedTensor):
        scaled = _lift_scaled_palette(values, scales)
    elif isinstance(values, Constant | _Cast):
        codes = values if isinstance(values, Constant) else values.codes
        if codes.type.name not in QUANTIZED_DTYPES:
            raise UnsupportedForm(f"scaled {codes.type.name}")
        scaled = scales.of(codes.shape, _stored(codes), codes.type.name, support)
    else:
        raise UnsupportedForm("scaled sparse floats")
    return SparseTensor(support.shape, support.mask, scaled)


def _lift_scaled_palette(data: PalettizedTensor, scales: _Scales) -> PalettizedTensor | QuantizedTensor:
    if data.dtype.kind not in "iu":
        if data.scale is not None or scales.zero_point is not None or scales.stored_dtype is not None:
            raise UnsupportedForm("palettized floats with zero points or several scales")
        return replace(data, scale=scales.values)
    name = data.dtype.name
    if scales.values.shape == data.group_counts and scales.stored_dtype is None:
        point = scales.zero_point
        offsets = None if point is None else point[..., None, None]
        lut = replace(_codes_of_table(data), scale=scales.values[..., None, None], zero_point=offsets)
        return replace(data, lut=lut)
    return scales.of(data.shape, data, name, data.support)


def _lift_scaled_float_codes(data: _FloatCodes, scales: _Scales) -> PalettizedTensor:
    if scales.zero_point is not None or scales.stored_dtype is not None:
        raise UnsupportedForm("palettized fp8 with zero points or e8m0 scales")
    tensor = _decoded(data, scales.decoded)
    if scales.values.shape != tensor.group_counts:
        return replace(tensor, scale=scales.values)
    assert isinstance(tensor.lut, QuantizedTensor)
    return replace(tensor, lut=replace(tensor.lut, scale=scales.values[..., None, None]))


class _Scales:
    """The scales and zero points of a chain's operation."""

    def __init__(self, factors: Constant, zero_point: NDArray[Any] | None, decoded: str) -> None:
        self.zero_point, self.decoded = zero_point, decoded
        self.stored_dtype = factors.type.name if factors.type.name == POWERS_OF_TWO else None
        if self.stored_dtype is None and factors.type.name != decoded:
            raise UnsupportedForm(f"scales of {factors.type.name} for {decoded}")
        values: NDArray[Any] = powers_of(factors) if self.stored_dtype else _values(factors)
        self.values = np.ascontiguousarray(values)

    def of(self, shape: tuple[int, ...], data: Any, name: str, support: Support | None = None) -> QuantizedTensor:
        extra: dict[str, Any] = {}
        if self.stored_dtype is not None:
            extra = {"scale_dtype": self.stored_dtype, "decoded_dtype": dtype_of(self.decoded)}
        return QuantizedTensor(shape, data, self.values, self.zero_point, name, support, **extra)


def _shape_of(node: Node) -> tuple[int, ...]:
    if not node.shape:
        raise FormatError("has a table of rank 0")
    return node.shape


def _stored(constant: Constant) -> NDArray[np.uint8]:
    if not constant.is_zero:
        return constant.data
    return np.zeros(constant.type.byte_count(prod(constant.shape)), np.uint8)


def _values(constant: Constant) -> NDArray[Any]:
    return array_of(constant.type, constant.shape, _stored(constant))


def _is_zero(constant: Constant) -> bool:
    return constant.is_zero or not constant.data.any()


def _zero_point(constant: Constant) -> NDArray[Any]:
    if constant.type.name not in QUANTIZED_DTYPES or not constant.type.is_integer:
        raise UnsupportedForm(f"zero points of {constant.type.name}")
    return np.ascontiguousarray(unpack_codes(constant.data, constant.shape, constant.type.name))


_LIFT: dict[str, Callable[[Form], Lifted]] = {
    CAST: _lift_cast,
    LUT_TO_DENSE: _lift_look_up,
    LUT_TO_SPARSE: _lift_look_up_sparse,
    BUILD_SPARSE: _lift_in_place,
    SPARSE_TO_DENSE: _lift_dense,
    SHIFT_SCALE: _lift_shift_scale,
}


def describe(node: Node) -> str:
    """A short description of how a chain stores its tensor, without looking at its values."""
    if isinstance(node, Constant):
        return "plain values"
    chain = _chain(node)
    by_name = {each.operation: each for each in chain}
    parts = []
    if SPARSE_TO_DENSE in by_name:
        parts.append("sparse")
    look_up = by_name.get(LUT_TO_DENSE) or by_name.get(LUT_TO_SPARSE)
    scaled = by_name.get(SHIFT_SCALE)
    if look_up is not None:
        parts.append(_describe_look_up(look_up))
    elif scaled is not None:
        scales = prod(scaled.operands[1].shape)
        parts.append(f"quantized {_codes(scaled).type.name}, {scales} {'scale' if scales == 1 else 'scales'}")
    if not parts:
        parts.append(node.operation)
    return " ".join(parts)


def _chain(node: Form) -> list[Form]:
    """The operations that compute the values, the last one first; not those of tables."""
    found, at = [], node
    while True:
        found.append(at)
        first = at.operands[0]
        if not isinstance(first, Form):
            return found
        at = first


def _codes(node: Form) -> Constant:
    first = node.operands[0]
    return first if isinstance(first, Constant) else _codes(first)


def _describe_look_up(node: Form) -> str:
    lut = node.operands[1].shape
    entries, groups = max(lut[-2], 1) if len(lut) > 1 else 1, prod(lut[:-2])
    grouped = f", {groups} groups" if groups > 1 else ""
    vectors = f", vectors of {lut[-1]}" if lut and lut[-1] > 1 else ""
    return f"palettized {entries.bit_length() - 1} bits{grouped}{vectors}"
