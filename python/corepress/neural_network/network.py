"""All weights of a model: those of its network and of nested networks, or of the networks of its pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FormatError
from .document import Document, LayerPlace
from .held_values import HeldParams, HeldValues
from .layers import LayerWeight, layer_weights, nested_networks


@dataclass(frozen=True)
class NetworkWeight:
    """A weight and its place in the model.

    Attributes
    ----------
    name : str
        The layer's name and the field: ``conv1.weights``.
    function : str
        Names of the pipeline's model, and of the loop or branch, that contain the layer; empty outside of these.
    weight : LayerWeight
        The rest.
    is_updatable : bool
        Whether its layer can be trained on a device, which takes float32 weights only.
    """

    name: str
    function: str
    weight: LayerWeight
    is_updatable: bool = False

    @property
    def path(self) -> str:
        """Both names."""
        return f"{self.function}/{self.name}" if self.function else self.name


@contextmanager
def naming(weight: NetworkWeight) -> Iterator[None]:
    """Make errors of damaged weights name the weight."""
    try:
        yield
    except FormatError as failure:
        raise FormatError(f"{weight.path}: {failure}") from None


def weights_of(layer: Any, place: LayerPlace, held: HeldValues | None = None) -> list[list[NetworkWeight]]:
    """The weights of a layer, and those of each layer of networks nested in it; without layers that have none.

    Parameters
    ----------
    layer : protobuf message
        The layer.
    place : LayerPlace
        Where it is.
    held : HeldValues, optional
        The values that its digests replace.
    """
    weights = [found for found in _weights_of(layer, place.where, place.is_trained) if found]
    return weights if held is None else [[_holding(each, held) for each in found] for found in weights]


def _holding(weight: NetworkWeight, held: HeldValues) -> NetworkWeight:
    return replace(weight, weight=replace(weight.weight, params=HeldParams(weight.weight.params, held)))


def _weights_of(layer: Any, where: str, trained: bool) -> Iterator[list[NetworkWeight]]:
    place = where.rstrip("/")
    weights = list(layer_weights(layer))
    is_updatable = trained and (layer.isUpdatable or any(each.params.isUpdatable for each in weights))
    yield [NetworkWeight(f"{layer.name}.{each.field}", place, each, is_updatable) for each in weights]
    for name, network in nested_networks(layer):
        for each in network.layers:
            yield from _weights_of(each, f"{where}{layer.name}.{name}/", trained)


def read_weights(place: LayerPlace) -> list[NetworkWeight]:
    """The weights of a layer of a document, including nested ones, without loading their large values."""
    layer, held = place.read_held()
    return [weight for found in weights_of(layer, place, held) for weight in found]


def require_network(function: str, document: Document, what: str) -> None:
    """Raise unless a model contains neural networks; the message names the function to call instead."""
    if document.places:
        return
    kind = document.root.kind
    if kind == "mlProgram":
        raise ValueError(f"{function}: {what} holds an ML program; use corepress.coreml.compress")
    if kind is None and not document.root.version:
        raise FormatError(f"{function}: {what} is not a Core ML model")
    raise ValueError(f"{function}: {what} holds no neural network")
