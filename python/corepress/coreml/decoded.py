"""The values that a constant stands for, however it is stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import same_bits
from ..measure import Error, error
from .decompressor import lift_definition
from .program import Definition
from .storage import steps
from .transform import Keep
from .values import ValueReader


class Undecodable(Exception):
    """A constant is stored in a form that this version does not know; the message says which."""


def decoded(definition: Definition, values: ValueReader, num_threads: int | None = None) -> NDArray[Any]:
    """The values of a constant, decompressed where needed.

    Raises
    ------
    Undecodable
        If this version does not know how it is stored.
    FormatError
        If it is damaged.
    """
    if definition.operation.type == "const":
        tensor = values.read(definition.parameters["val"], definition.where)
        if tensor.data_type.dtype is None:
            raise Undecodable(f"{tensor.data_type.name} is not supported by this version")
        return tensor.data
    try:
        return lift_definition(definition, values).dense(num_threads=num_threads)
    except Keep as reason:
        raise Undecodable(str(reason)) from reason


def release(definition: Definition, values: ValueReader) -> None:
    """Let the system drop the pages of a constant's data."""
    for step in steps(definition):
        for reference in step.references:
            reader = values.file(reference.key.file)
            reader.release(reader.record(reference.key.offset))


def distance(first: NDArray[Any], second: NDArray[Any], num_threads: int | None = None) -> Error:
    """`corepress.error` of two arrays of one shape and dtype, of any element type; none if the bits are the same."""
    if same_bits(first, second):
        return Error(0.0, 0.0, math.inf, 0.0, 1.0)
    if first.dtype.kind == "f" and first.dtype.itemsize in (2, 4):
        return error(first, second, num_threads=num_threads)
    wide = np.result_type(first.dtype, np.float64)
    return error(first.astype(wide).astype(np.float32), second.astype(wide).astype(np.float32), num_threads=num_threads)


def finite(value: float | None) -> float | None:
    """A number for strict JSON: None for what has no form there."""
    return value if value is not None and math.isfinite(value) else None


def in_decibels(value: float | None) -> str:
    """For tables."""
    if value is None or math.isnan(value):
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"
