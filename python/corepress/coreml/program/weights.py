"""Weights: the constants of a program, each with all that shares its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from ...engine.weights import Consumer, Uses
from ..format.values import MINIMUM_BLOB_COUNT, ValueReader
from . import storage
from .graph import label_of
from .program import Definition, Program
from .storage import steps


@dataclass(frozen=True, eq=False)
class Weight(Uses):
    """A constant as it is stored: all the definitions that share its data; see `corepress.engine.weights.Weight`."""

    definitions: tuple[Definition, ...]
    FLOAT_DTYPES: ClassVar[tuple[str, ...]] = ("float16", "float32")

    @property
    def first(self) -> Definition:
        """The definition that represents all."""
        return self.definitions[0]

    @property
    def key(self) -> Definition:
        """Equal for equal weights of one program."""
        return self.first

    @property
    def name(self) -> str:
        """Name of the first definition."""
        return self.first.name

    @property
    def function(self) -> str:
        """Its function."""
        return self.first.function

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return self.first.shape

    @property
    def dtype(self) -> str:
        """Element type of the decompressed values."""
        return self.first.data_type.name

    @property
    def float_dtypes(self) -> tuple[str, ...]:
        """The element types that can be compressed."""
        return self.FLOAT_DTYPES

    @property
    def consumers(self) -> tuple[Consumer, ...]:  # type: ignore[override]
        """Distinct consumers of all definitions."""
        return tuple(dict.fromkeys(consumer for each in self.definitions for consumer in each.consumers))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all definitions, and their labels where these differ."""
        names = ((each.name, each.operation.outputs[0].name, label_of(each.operation)) for each in self.definitions)
        return tuple(dict.fromkeys(name for group in names for name in group))

    @property
    def is_compressed(self) -> bool:
        """Whether it is stored in another form than its plain values."""
        return bool(self.first.operation.type != "const")

    @property
    def stored_bytes(self) -> int:
        """Bytes of its parameters; data that two parameters share counts once."""
        return storage.stored_bytes(self.first)

    @property
    def storage(self) -> str:
        """How it is stored, for example ``palettized 4 bits``."""
        return storage.describe_storage(self.first)

    @property
    def feeds_definition(self) -> bool:
        """Whether it is an operand of another constant."""
        return any(each.feeds_definition for each in self.definitions)

    @property
    def feeds_output(self) -> bool:
        """Whether it is an output of a block."""
        return any(each.feeds_output for each in self.definitions)

    @property
    def obstacle(self) -> str | None:
        """Why it is left unchanged whatever a config says."""
        if prod(self.shape) < MINIMUM_BLOB_COUNT:
            return f"small: less than {MINIMUM_BLOB_COUNT} elements"
        if self.feeds_definition:
            return "operand of a compressed weight"
        return "block output, which Core ML does not take from a compressed weight" if self.feeds_output else None


def weights_of(program: Program) -> list[Weight]:
    """Group definitions that share their data, across functions and blocks, in program order."""
    groups: dict[Definition, list[Definition]] = {}
    for definition in program.definitions:
        groups.setdefault(definition.original, []).append(definition)
    return [Weight(tuple(group)) for group in groups.values()]


def visible_weights(program: Program) -> list[Weight]:
    """The constants that a user would call weights: compressed ones, and large numeric ones."""
    return [
        weight
        for weight in weights_of(program)
        if weight.first.data_type.nbits
        and weight.dtype != "bool"
        and (not weight.feeds_definition if weight.is_compressed else prod(weight.shape) >= MINIMUM_BLOB_COUNT)
    ]


def check_stored(weights: Iterable[Weight], values: ValueReader) -> None:
    """FormatError unless the stored form of each constant matches the declared types; reads no data."""
    for weight in weights:
        for step in steps(weight.first):
            for name, value in step.parameters.items():
                values.check(value, f"{step.where}: {name}")
