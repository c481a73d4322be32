"""All weights of a model: those of its network and of networks nested in it, or of the networks of its pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError
from .document import Document, LayerPlace
from .layers import LayerWeight, layer_weights, nested_networks


@dataclass(frozen=True)
class NetworkWeight:
    """A weight and where it stands.

    Attributes
    ----------
    name : str
        The layer's name and the field: ``conv1.weights``.
    function : str
        Names of the model in a pipeline, and of the loop or branch, that the layer stands in; empty outside of these.
    weight : LayerWeight
        The rest.
    """

    name: str
    function: str
    weight: LayerWeight

    @property
    def path(self) -> str:
        """Both names."""
        return f"{self.function}/{self.name}" if self.function else self.name


@contextmanager
def naming(weight: NetworkWeight) -> Iterator[None]:
    """Have the errors of damaged weights say which."""
    try:
        yield
    except FormatError as failure:
        raise FormatError(f"{weight.path}: {failure}") from None


def weights_of(layer: Any, where: str) -> list[list[NetworkWeight]]:
    """The weights of a layer, and those of each layer of networks nested in it; without layers that have none.

    Parameters
    ----------
    layer : protobuf message
        The layer.
    where : str
        Names of what it stands in, each with a slash behind.
    """
    return [found for found in _weights_of(layer, where) if found]


def _weights_of(layer: Any, where: str) -> Iterator[list[NetworkWeight]]:
    place = where.rstrip("/")
    yield [NetworkWeight(f"{layer.name}.{each.field}", place, each) for each in layer_weights(layer)]
    for name, network in nested_networks(layer):
        for each in network.layers:
            yield from _weights_of(each, f"{where}{layer.name}.{name}/")


def read_weights(place: LayerPlace) -> list[NetworkWeight]:
    """The weights of a layer of a document, nested ones too."""
    return [weight for found in weights_of(place.read(), place.where) for weight in found]


def require_network(function: str, document: Document, what: str) -> None:
    """Raise unless a model has neural networks; the message says what else could be called."""
    if document.places:
        return
    kind = document.root.kind
    if kind == "mlProgram":
        raise ValueError(f"{function}: {what} holds an ML program, which corepress.coreml.compress is for")
    if kind is None and not document.root.version:
        raise FormatError(f"{function}: {what} is not a Core ML model")
    raise ValueError(f"{function}: {what} holds no neural network")


def require_fixed(function: str, document: Document, what: str) -> None:
    """Raise if a model, or a part of its pipeline, is updatable."""
    part = _updatable_part(document)
    if part is not None:
        raise ValueError(f"{function}: {what}: {part} is updatable, and training on the device needs float32 weights")


def _updatable_part(document: Document) -> str | None:
    """The name of an updatable model of a document, or None."""
    if document.root.is_updatable:
        return "the model"
    for place in document.places:
        if any(model.is_updatable for model in place.models):
            return f"its part {place.where.rstrip('/')}"
    return None
