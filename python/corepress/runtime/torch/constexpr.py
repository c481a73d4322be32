"""The values of constant operations, computed from their parameters by definition, whatever these are made of.

Most weights are read as the compressed tensors of `corepress.coreml`, which decompress faster. Those have no form for
all that Core ML allows, such as scales that are themselves quantized, sparse vectors, or a mask that a program uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...coreml.format.data_types import BY_NAME, DataType, data_type_of
from ...coreml.format.values import Tensor, ValueReader, tensor_type
from ...coreml.program.program import Definition
from ...coreml.program.storage import steps
from ...errors import FormatError, UnsupportedOperationError
from ...kernels import unpack_bits
from ...specs import in_bits
from ...tensors import packed_size
from ...tensors.blocks import blocks, refine, require_divisors, shift_scale, spread
from .limits import limited

CAST = "constexpr_cast"  # stored in one type, used in another; not compression, so that only here anybody reads it
_CAST_TYPES = {"fp16": np.float16, "fp32": np.float32}


class Constant(NamedTuple):
    """Elements, never packed, and their type; those of less than 8 bits are in an array of int8 or uint8."""

    array: NDArray[Any]
    data_type: DataType


_Given: TypeAlias = Mapping[str, Constant]


def elements(tensor: Tensor, where: str) -> Constant:
    """The elements of a stored tensor.

    Raises
    ------
    UnsupportedOperationError
        If NumPy has no such type.
    """
    kind, data = tensor.data_type, tensor.data
    if kind.packed:
        data = unpack_bits(data, kind.nbits, tensor.count, signed=kind.name.startswith("int"))
    elif kind.dtype is None and kind.name != "string":
        raise UnsupportedOperationError(f"{where}: {kind.name} cannot be run")
    return Constant(data.reshape(tensor.shape), kind)


def evaluate(definition: Definition, values: ValueReader) -> tuple[Constant, ...]:
    """The results of an operation that yields constants.

    Parameters
    ----------
    definition : Definition
        The operation, with those that it takes results of.
    values : ValueReader
        Reader of its package.

    Raises
    ------
    UnsupportedOperationError
        If one of them is not known.
    FormatError
        If parameters contradict each other, or the declared types.
    """
    found: dict[Definition, tuple[Constant, ...]] = {}
    for step in steps(definition):
        if step.operation.type not in OPERATIONS:
            raise UnsupportedOperationError(f"{step.where}: its type is not supported by this version")
        given: dict[str, Constant] = {}
        for name, value in step.parameters.items():
            where = f"{step.where}: {name}"
            given[name] = elements(values.read(value, where), where)
        for name, (producer, index) in step.operands.items():
            given[name] = found[producer][index]
        try:
            found[step] = OPERATIONS[step.operation.type](given)
        except (FormatError, ValueError) as error:
            raise FormatError(f"{step.where}: {error}") from error
        _require_declared(step, found[step])
    return found[definition]


def _require_declared(step: Definition, results: tuple[Constant, ...]) -> None:
    outputs = step.operation.outputs
    if len(outputs) != len(results):
        raise FormatError(f"{step.where}: has {len(results)} outputs, not {len(outputs)}")
    for output, result in zip(outputs, results, strict=True):
        declared = tensor_type(output.type, step.where)
        if declared != (result.data_type, result.array.shape):
            kind, shape = declared or ("another type", "")
            raise FormatError(
                f"{step.where}: {output.name} is declared {getattr(kind, 'name', kind)} {shape}, "
                f"but stores {result.data_type.name} {result.array.shape}"
            )


def _const(given: _Given) -> tuple[Constant, ...]:
    return (_required(given, "val"),)


def _cast(given: _Given) -> tuple[Constant, ...]:
    name = str(_single(given, "output_dtype"))
    if name not in _CAST_TYPES:
        raise FormatError(f"its output_dtype must be {' or '.join(_CAST_TYPES)}, not {name}")
    with np.errstate(over="ignore"):
        return (_of(_required(given, "source_val").array.astype(_CAST_TYPES[name])),)


def _affine_dequantize(given: _Given) -> tuple[Constant, ...]:
    data = _required(given, "quantized_data").array
    axis = _axis(given, "axis", data.ndim)
    scale, zero_point = (_along(given, name, axis, data.shape) for name in ("scale", "zero_point"))
    return (_of(shift_scale(data, scale, zero_point)),)


def _along(given: _Given, name: str, axis: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """One value, or one per entry of an axis, to be broadcast."""
    values = _required(given, name).array
    if values.ndim == 0:
        return values
    if values.shape != (shape[axis],):
        raise FormatError(f"its {name} has shape {values.shape}, for axis {axis} of shape {shape}")
    return values.reshape([-1 if each == axis else 1 for each in range(len(shape))])


def _blockwise_shift_scale(given: _Given) -> tuple[Constant, ...]:
    data = _required(given, "data").array
    scale, offset = _scales(given, data.shape)
    factors, offsets = spread(scale), None if offset is None else spread(offset)
    scaled = shift_scale(blocks(np.ascontiguousarray(data), scale.shape), factors, offsets)
    return (_of(scaled.reshape(data.shape)),)


def _sparse_blockwise_shift_scale(given: _Given) -> tuple[Constant, ...]:
    mask, data = _sparse(given, "data_mask", "nonzero_data")
    scale, offset = _scales(given, mask.shape)
    factors, offsets = (None if each is None else refine(each, mask.shape)[mask] for each in (scale, offset))
    assert factors is not None
    return _mask_of(mask), _of(shift_scale(data.array, factors, offsets))


def _scales(given: _Given, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    scale = _required(given, "scale").array
    require_divisors(shape, scale.shape)
    if scale.dtype.kind != "f":
        raise FormatError(f"its scale is {scale.dtype}")
    if "offset" not in given:
        return scale, None
    offset = given["offset"].array
    if offset.shape != scale.shape:
        raise FormatError(f"its offset has shape {offset.shape}, its scale {scale.shape}")
    return scale, offset


def _lut_to_dense(given: _Given) -> tuple[Constant, ...]:
    lut = _required(given, "lut")
    if "shape" in given:  # the form of iOS 16
        return (Constant(_look_up_packed(given, lut.array), lut.data_type),)
    codes = _required(given, "indices")
    tables, groups = _tables(lut.array, codes, codes.array.shape)
    vectors = tables[spread(groups), blocks(np.ascontiguousarray(codes.array), groups.shape)]
    vectors = vectors.reshape(*codes.array.shape, tables.shape[-1])
    return (Constant(_in_line(vectors, given), lut.data_type),)


def _look_up_packed(given: _Given, table: NDArray[Any]) -> NDArray[Any]:
    shape, packed = _shape(given), _required(given, "indices").array
    nbits, count = table.size.bit_length() - 1, prod(shape)
    if table.shape != (1 << max(nbits, 1),) or nbits > 8:
        raise FormatError(f"its lut has shape {table.shape}")
    if packed.dtype != np.uint8 or packed.size != packed_size(count, nbits):
        raise FormatError(f"its indices are {packed.dtype} {packed.shape}, for {count} of {in_bits(nbits)}")
    found: NDArray[Any] = table[unpack_bits(packed.reshape(-1), nbits, count)].reshape(shape)
    return found


def _lut_to_sparse(given: _Given) -> tuple[Constant, ...]:
    lut = _required(given, "lut")
    mask, codes = _sparse(given, "indices_mask", "indices_nonzero_data")
    tables, groups = _tables(lut.array, codes, mask.shape)
    vectors = tables[refine(groups, mask.shape)[mask], codes.array]
    if vectors.shape[-1] == 1:
        return _mask_of(mask), Constant(vectors[:, 0], lut.data_type)
    dense = np.zeros((*mask.shape, vectors.shape[-1]), vectors.dtype)
    dense[mask] = vectors
    ones = _in_line(np.broadcast_to(mask[..., None], dense.shape), given)
    return _mask_of(ones), Constant(_in_line(dense, given)[ones], lut.data_type)


def _tables(lut: NDArray[Any], codes: Constant, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All tables in one axis, and along the axes that `shape` has the number of each block's table."""
    nbits, counts = codes.data_type.nbits, lut.shape[:-2]
    if not codes.data_type.name.startswith("uint") or nbits > 8:
        raise FormatError(f"its indices are {codes.data_type.name}")
    if lut.ndim != len(shape) + 2 or lut.shape[-2] != 1 << nbits:
        raise FormatError(f"its lut has shape {lut.shape}, for indices of {in_bits(nbits)} (shape {shape})")
    require_divisors(shape, counts)
    if lut.shape[-1] > 1:  # a bit of the file may stand for a whole vector
        limited((*shape, lut.shape[-1]))
    return lut.reshape(prod(counts), *lut.shape[-2:]), np.arange(prod(counts)).reshape(counts)


def _in_line(vectors: NDArray[Any], given: _Given) -> NDArray[Any]:
    """Vectors along the last axis, laid out along the axis that the operation names."""
    *shape, length = vectors.shape
    if length == 1:
        return vectors[..., 0]
    axis = _axis(given, "vector_axis", len(shape))
    shape[axis] *= length
    return np.moveaxis(vectors, -1, axis + 1).reshape(shape)


def _sparse_to_dense(given: _Given) -> tuple[Constant, ...]:
    mask, data = _sparse(given, "mask", "nonzero_data")
    dense = np.zeros(mask.shape, data.array.dtype)
    dense[mask] = data.array
    return (Constant(dense, data.data_type),)


def _sparse(given: _Given, mask_name: str, data_name: str) -> tuple[NDArray[np.bool_], Constant]:
    """A mask, and as many values as it has ones."""
    mask, data = _required(given, mask_name).array, _required(given, data_name)
    if "shape" in given:  # the form of iOS 16
        shape = _shape(given)
        if mask.dtype != np.uint8 or mask.size != packed_size(prod(shape), 1):
            raise FormatError(f"its {mask_name} is {mask.dtype} {mask.shape}, for shape {shape}")
        mask = unpack_bits(mask.reshape(-1), 1, prod(shape)).reshape(shape)
    ones = mask.astype(np.bool_)
    if data.array.shape != (np.count_nonzero(ones),):
        raise FormatError(f"its {data_name} has shape {data.array.shape}, for {np.count_nonzero(ones)} ones of a mask")
    return ones, data


def _mask_of(ones: NDArray[np.bool_]) -> Constant:
    return Constant(ones.astype(np.uint8), BY_NAME["uint1"])


def _of(array: NDArray[Any]) -> Constant:
    return Constant(array, data_type_of(array.dtype))


def _required(given: _Given, name: str) -> Constant:
    if name not in given:
        raise FormatError(f"has no parameter {name}")
    return given[name]


def _single(given: _Given, name: str) -> Any:
    array = _required(given, name).array
    if array.size != 1:
        raise FormatError(f"its {name} must be one value, not an array of shape {array.shape}")
    return array.item()


def _axis(given: _Given, name: str, rank: int) -> int:
    axis = int(_single(given, name))
    if not -rank <= axis < rank:
        raise FormatError(f"its {name} {axis} is out of range for rank {rank}")
    return axis % rank


def _shape(given: _Given) -> tuple[int, ...]:
    return tuple(map(int, given["shape"].array.reshape(-1)))


OPERATIONS: dict[str, Callable[[_Given], tuple[Constant, ...]]] = {
    "const": _const,
    CAST: _cast,
    "constexpr_affine_dequantize": _affine_dequantize,
    "constexpr_blockwise_shift_scale": _blockwise_shift_scale,
    "constexpr_lut_to_dense": _lut_to_dense,
    "constexpr_lut_to_sparse": _lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _sparse_to_dense,
}
