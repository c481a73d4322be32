"""The element types of Core ML, in one table: numbers in the program, numbers in weight files, and NumPy dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class DataType:
    """One element type.

    Attributes
    ----------
    name : str
        Name as in Core ML's schema, in lower case.
    program_number : int
        Value of the schema's ``DataType`` enumeration.
    blob_number : int or None
        Number in a weight file's record; None for types that weight files do not hold.
    nbits : int
        Bits per element; 0 where elements have no fixed size.
    inline_field : str or None
        Field of the schema's ``TensorValue`` that holds inline values; None where inline values are not defined.
    dtype : numpy.dtype or None
        Dtype of an array of this type; None where NumPy has none and for packed types.
    """

    name: str
    program_number: int
    blob_number: int | None
    nbits: int
    inline_field: str | None
    dtype: np.dtype[Any] | None = None

    @property
    def packed(self) -> bool:
        """Whether elements are smaller than a byte and packed into a bit stream."""
        return 0 < self.nbits < 8

    def byte_count(self, count: int) -> int:
        """Bytes that `count` elements occupy."""
        return (count * self.nbits + 7) // 8

    def padding(self, count: int) -> int:
        """Unused bits in the last of these bytes."""
        return -count * self.nbits % 8


def _little_endian(name: str) -> np.dtype[Any]:
    return np.dtype(name).newbyteorder("<")


DATA_TYPES = (
    DataType("bool", 1, None, 8, "bools", np.dtype(np.bool_)),
    DataType("string", 2, None, 0, "strings"),
    DataType("float16", 10, 1, 16, "bytes", _little_endian("float16")),
    DataType("float32", 11, 2, 32, "floats", _little_endian("float32")),
    DataType("float64", 12, None, 64, "doubles", _little_endian("float64")),
    DataType("bfloat16", 13, 5, 16, None),
    DataType("int8", 21, 4, 8, "bytes", np.dtype(np.int8)),
    DataType("int16", 22, 6, 16, "ints", _little_endian("int16")),
    DataType("int32", 23, 14, 32, "ints", _little_endian("int32")),
    DataType("int64", 24, None, 64, "longInts", _little_endian("int64")),
    DataType("int4", 25, 8, 4, "bytes"),
    DataType("uint8", 31, 3, 8, "bytes", np.dtype(np.uint8)),
    DataType("uint16", 32, 7, 16, "ints", _little_endian("uint16")),
    DataType("uint32", 33, 15, 32, "bytes", _little_endian("uint32")),
    DataType("uint64", 34, None, 64, "longInts", _little_endian("uint64")),
    DataType("uint4", 35, 11, 4, "bytes"),
    DataType("uint2", 36, 10, 2, "bytes"),
    DataType("uint1", 37, 9, 1, "bytes"),
    DataType("uint6", 38, 13, 6, "bytes"),
    DataType("uint3", 39, 12, 3, "bytes"),
    DataType("float8e4m3fn", 40, 16, 8, None),
    DataType("float8e5m2", 41, 17, 8, None),
)

BY_NAME = {data_type.name: data_type for data_type in DATA_TYPES}
BY_PROGRAM_NUMBER = {data_type.program_number: data_type for data_type in DATA_TYPES}
BY_BLOB_NUMBER = {data_type.blob_number: data_type for data_type in DATA_TYPES if data_type.blob_number is not None}
FLOATS = (BY_NAME["float16"], BY_NAME["float32"])


def data_type_of(dtype: np.dtype[Any]) -> DataType:
    """The data type that stores arrays of this dtype."""
    return BY_NAME[dtype.name]
