"""Which function builds a layer: the only list of the layers that can be run.

A builder reads a layer's message once, when the network is loaded, and returns the function that computes the layer: it
takes the layer's inputs in order, and its weights as keyword arguments, by the names of their fields. It returns a
tensor, or several for several outputs. Layers without inputs are given an empty tensor, which says on which device to
work. All values are float32; what is not is converted by the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ....coreml.format.versions import IOS15
from ....errors import UnsupportedOperationError
from .. import ops  # noqa: F401  (fills the table of operations)
from ..registry import implementation_of

Run: TypeAlias = Callable[..., Any]
Builder: TypeAlias = "Callable[[Given], Run]"


@dataclass(frozen=True)
class Given:
    """What a layer is built from.

    Attributes
    ----------
    layer_type : str
        Field of the oneof of layers.
    params : protobuf message
        The message in that field.
    inputs, outputs : int
        How many values it takes and makes.
    weights : frozenset of str
        Fields of weights that have values.
    """

    layer_type: str
    params: Any
    inputs: int
    outputs: int
    weights: frozenset[str] = frozenset()


CONTROL = ("branch", "loop", "loopBreak", "loopContinue")
"""Layers that decide which others are run: the network itself runs them."""
_BUILDERS: dict[str, Builder] = {}


def layer(*layer_types: str) -> Callable[[Builder], Builder]:
    """Register a builder for types of layers."""

    def register(builder: Builder) -> Builder:
        for layer_type in layer_types:
            assert layer_type not in _BUILDERS, layer_type
            _BUILDERS[layer_type] = builder
        return builder

    return register


def builder_of(layer_type: str) -> Builder | None:
    """The builder of a type of layers; None if it cannot be run."""
    return _BUILDERS.get(layer_type)


def layer_types() -> tuple[str, ...]:
    """All types of layers that can be run, in alphabetic order."""
    return tuple(sorted((*_BUILDERS, *CONTROL)))


def operation(name: str, version: int = IOS15) -> Run:
    """The function of an operation of ML programs, as a specification version defines it."""
    implementation = implementation_of(name, version)
    if implementation is None:
        raise UnsupportedOperationError(f"operation {name} of specification version {version}")
    return implementation.function
