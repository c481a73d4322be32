"""How constants are stored: bytes and a short description, from types and shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ...errors import FormatError
from ..format.data_types import DataType
from ..format.values import tensor_type
from ..operations import describe
from .program import Definition

_MOST_STEPS = 256  # that a constant is made of; known joint forms have three operations and their parameters


def _types(definition: Definition) -> dict[str, tuple[DataType, tuple[int, ...]]]:
    types = {}
    for name, value in definition.parameters.items():
        declared = tensor_type(value.type, definition.where)
        if declared is None:
            raise FormatError(f"{definition.where}: its {name} must be a tensor of fixed shape")
        types[name] = declared
    return types


def steps(definition: Definition) -> Iterator[Definition]:
    """A definition and the definitions it is made from, each once, what one is made from before it.

    Raises
    ------
    FormatError
        If there are so many that the file must be hostile.
    """
    found: dict[Definition, None] = {}
    pending = [definition]
    while pending:
        producers = [producer for producer in pending[-1].producers if producer not in found]
        if len(pending) + len(found) + len(producers) > _MOST_STEPS:
            raise FormatError(f"{definition.where}: is made of more than {_MOST_STEPS} constants")
        if producers:
            pending.extend(producers)
        else:
            found[pending.pop()] = None
    return iter(found)


def stored_bytes(definition: Definition) -> int:
    """Bytes of a constant's parameters; data that two parameters share counts once."""
    sizes = {}
    for step in steps(definition):
        keys = {reference.parameter: reference.key for reference in step.references}
        for name, (data_type, shape) in _types(step).items():
            sizes[keys.get(name, (step, name))] = data_type.byte_count(prod(shape))
    return sum(sizes.values())


def describe_storage(definition: Definition) -> str:
    """For example ``palettized 4 bits``; the steps of joint forms are joined by " + "."""
    return " + ".join(describe(step.operation.type, _types(step)) for step in steps(definition))
