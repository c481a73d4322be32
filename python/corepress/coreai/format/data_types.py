"""The element types of Core AI, in one table: names in programs, names here, and NumPy dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DataType:
    """One element type.

    Attributes
    ----------
    name : str
        Name here, as compressed tensors and specs have it.
    program_name : str
        Name in programs.
    nbits : int
        Bits per element. Elements of less than 8 bits are packed, without padding between rows.
    storage : numpy.dtype
        Dtype of the stored bytes: that of the elements where NumPy has one; uint16 for bfloat16, uint8 for the rest.
    """

    name: str
    program_name: str
    nbits: int
    storage: np.dtype[Any]

    @property
    def packed(self) -> bool:
        """Whether elements are smaller than a byte and packed into a bit stream."""
        return self.nbits < 8

    @property
    def is_float(self) -> bool:
        """Whether weights can be of this type when they are decompressed."""
        return self.name in FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether it is one of whole numbers."""
        return self.program_name[0] in "su"

    def byte_count(self, count: int) -> int:
        """Bytes that `count` elements occupy."""
        return (count * self.nbits + 7) // 8


def _little_endian(name: str) -> np.dtype[Any]:
    return np.dtype(name).newbyteorder("<")


FLOATS = ("float16", "bfloat16", "float32", "float64")
DATA_TYPES = (
    DataType("bool", "i1", 8, np.dtype(np.bool_)),
    DataType("float64", "f64", 64, _little_endian("float64")),
    DataType("float32", "f32", 32, _little_endian("float32")),
    DataType("float16", "f16", 16, _little_endian("float16")),
    DataType("bfloat16", "bf16", 16, _little_endian("uint16")),
    DataType("float8_e4m3fn", "f8E4M3FN", 8, np.dtype(np.uint8)),
    DataType("float8_e5m2", "f8E5M2", 8, np.dtype(np.uint8)),
    DataType("float8_e8m0fnu", "f8E8M0FNU", 8, np.dtype(np.uint8)),
    DataType("float4_e2m1fn", "f4E2M1FN", 4, np.dtype(np.uint8)),
    *(DataType(f"int{bits}", f"si{bits}", bits, np.dtype(np.uint8)) for bits in range(1, 8)),
    *(DataType(f"uint{bits}", f"ui{bits}", bits, np.dtype(np.uint8)) for bits in range(1, 8)),
    *(DataType(f"int{bits}", f"si{bits}", bits, _little_endian(f"int{bits}")) for bits in (8, 16, 32, 64)),
    *(DataType(f"uint{bits}", f"ui{bits}", bits, _little_endian(f"uint{bits}")) for bits in (8, 16, 32, 64)),
)

BY_NAME = {data_type.name: data_type for data_type in DATA_TYPES}
BY_PROGRAM_NAME = {data_type.program_name: data_type for data_type in DATA_TYPES}


def bfloat16() -> np.dtype[Any]:
    """NumPy's dtype of bfloat16, which the package ml_dtypes has; Core AI's own library depends on it."""
    import ml_dtypes

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of arrays of a float type."""
    return bfloat16() if name == "bfloat16" else np.dtype(name)


def array_of(data_type: DataType, shape: tuple[int, ...], data: NDArray[np.uint8]) -> NDArray[Any]:
    """View stored bytes as an array of a type that is not packed; fp8 remains uint8."""
    values = data.view(data_type.storage)
    if data_type.name == "bfloat16":
        values = values.view(bfloat16())
    return values.reshape(shape)
