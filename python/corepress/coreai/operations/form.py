"""What all forms share: a pure description of the operations that store a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...tensors import pack_codes
from ..format.data_types import BY_NAME, DataType

CONSTANT = "constant"
LUT_TO_DENSE = "lut_to_dense"
LUT_TO_SPARSE = "lut_to_sparse_with_bitmask"
BUILD_SPARSE = "build_sparse_with_bitmask"
SPARSE_TO_DENSE = "sparse_with_bitmask_to_dense"
SHIFT_SCALE = "blockwise_shift_scale"
CAST = "cast"


class UnsupportedForm(Exception):
    """A valid chain of operations that this version cannot convert to a compressed tensor; the message says why."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A stored constant.

    Attributes
    ----------
    type : DataType
        Type of its elements.
    shape : tuple of int
        Its shape.
    data : numpy.ndarray of uint8
        Its bytes, packed where elements are smaller than a byte. Only the first element of constants that are zero
        everywhere: programs store them once.
    is_zero : bool
        Whether it is zero everywhere.
    """

    type: DataType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]
    is_zero: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes that it occupies in a file."""
        return int(self.data.nbytes)


@dataclass(frozen=True, eq=False)
class Form:
    """An operation that yields a tensor from constants, and through its operands those that it builds on: a chain.

    Attributes
    ----------
    operation : str
        Short name of the operation, without ``coreai.``.
    operands : tuple of Form or Constant
        Its operands, in order.
    type : DataType
        Type of the elements of its result.
    shape : tuple of int
        Shape of its result.
    is_sparse : bool
        Whether its result is a sparse tensor.
    """

    operation: str
    operands: tuple[Node, ...]
    type: DataType
    shape: tuple[int, ...]
    is_sparse: bool = False

    def constants(self) -> Iterator[Constant]:
        """All that the chain stores, each once."""
        seen: dict[int, Constant] = {}
        for operand in self.operands:
            for each in (operand,) if isinstance(operand, Constant) else operand.constants():
                seen.setdefault(id(each), each)
        yield from seen.values()

    @property
    def nbytes(self) -> int:
        """Bytes that the chain stores."""
        return sum(each.nbytes for each in self.constants())

    @property
    def operations(self) -> tuple[str, ...]:
        """Names of the operations of the chain, the last one first."""
        inner = (operand.operations for operand in self.operands if isinstance(operand, Form))
        return (self.operation, *(name for names in inner for name in names))


Node: TypeAlias = Constant | Form


def packed(type_name: str, shape: tuple[int, ...], data: NDArray[np.uint8]) -> Constant:
    """A constant of a type that is stored as bytes, as compressed tensors have it."""
    data_type = BY_NAME[type_name]
    size = data_type.byte_count(prod(shape))
    if data.shape != (size,) or data.dtype != np.uint8:
        raise ValueError(f"lower: {type_name} {shape} has {size} bytes, not {data.dtype} {data.shape}")
    return Constant(data_type, shape, data)


def values_of(array: NDArray[Any]) -> Constant:
    """A constant from an array of floats, or of integers of whole bytes."""
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Constant(BY_NAME[array.dtype.name], array.shape, data)


def codes_of(codes: NDArray[Any], type_name: str) -> Constant:
    """A constant from integers, one in each element of the array."""
    return packed(type_name, codes.shape, pack_codes(codes, type_name))


def zeros(type_name: str, shape: tuple[int, ...]) -> Constant:
    """A constant that is zero everywhere."""
    data_type = BY_NAME[type_name]
    return Constant(data_type, shape, np.zeros(data_type.byte_count(1), np.uint8), True)


def axis_of(axis: int | None) -> Constant:
    """The axis of a look-up: that of vectors, which values have no use for."""
    return values_of(np.asarray(axis or 0, np.int16))
