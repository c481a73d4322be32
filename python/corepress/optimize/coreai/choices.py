"""The enumerations of ``coreai_opt.coreai_utils``, with its members and values."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeVar

EnumType = TypeVar("EnumType", bound=Enum)


class _Choice(str, Enum):
    def __str__(self) -> str:
        return str(self.value)


class DType(_Choice):
    """Types of codes, of entries of tables, and of scales."""

    INT2 = "int2"
    UINT2 = "uint2"
    INT4 = "int4"
    UINT4 = "uint4"
    INT8 = "int8"
    UINT8 = "uint8"
    FP4_E2M1FN = "fp4_e2m1fn"
    FP8_E4M3FN = "fp8_e4m3fn"
    FP8_E5M2 = "fp8_e5m2"
    FP8_E8M0FNU = "fp8_e8m0fnu"

    def is_int(self) -> bool:
        """Whether it is a type of integers."""
        return "int" in self.value


class QScheme(_Choice):
    """Whether codes are around 0, or have a zero point."""

    SYMMETRIC = "symmetric"
    ASYMMETRIC = "asymmetric"


class CompressionGranularity(_Choice):
    """What shares a table, or scales."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_BLOCK = "per_block"
    PER_GROUPED_CHANNEL = "per_grouped_channel"


def chosen(function: str, name: str, value: Any, choices: tuple[EnumType, ...]) -> EnumType:
    """The member for a value: a member of this or of coreai-opt's enumeration, or its value.

    Raises
    ------
    ValueError
        If it is none of the choices.
    """
    given = getattr(value, "value", value)
    for each in choices:
        if given == each.value:
            return each
    names = ", ".join(repr(each.value) for each in choices)
    raise ValueError(f"{function}: {name} must be one of {names}, not {given!r}")


def dtype_name(dtype: DType) -> str:
    """Its name in corepress."""
    return dtype.value.replace("fp", "float") if dtype.value.startswith("fp") else dtype.value
