"""The values of a constant, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ..engine.distances import Pair, Undecodable
from ..errors import Skip
from ..tensors.base import CompressedTensor, decoded_pieces
from .decompressor import lift_definition, release
from .format.values import ValueReader
from .program.program import Definition


def decoded_pairs(
    first: tuple[Definition, ValueReader], second: tuple[Definition, ValueReader], num_threads: int | None = None
) -> Iterator[Pair]:
    """The values of two constants of one shape, a piece at a time, so that neither has to be in memory completely.

    Raises
    ------
    Undecodable
        If this version does not know how one is stored.
    FormatError
        If one is damaged.
    """
    for ours, theirs in decoded_pieces((stored_form(*first), stored_form(*second)), num_threads):
        yield ours, theirs
        release(*first)
        release(*second)


def stored_form(definition: Definition, values: ValueReader) -> NDArray[Any] | CompressedTensor:
    """The plain values of a constant, or the tensor that it is stored as.

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
        return lift_definition(definition, values)
    except Skip as reason:
        raise Undecodable(str(reason)) from reason
