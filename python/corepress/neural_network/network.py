"""All weights of a model: those of its network and of networks nested in it, or of the networks of its pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import FormatError
from .layers import LayerWeight, layer_weights, nested_networks

_NETWORKS = ("neuralNetwork", "neuralNetworkClassifier", "neuralNetworkRegressor")
_PIPELINES = ("pipeline", "pipelineClassifier", "pipelineRegressor")


@dataclass(frozen=True)
class NetworkWeight:
    """A weight and where it stands.

    Attributes
    ----------
    name : str
        The layer's name and the field: ``conv1.weights``.
    function : str
        Names of the model in a pipeline, and of the loop or branch, that the layer stands in; empty outside of these.
    models : tuple of protobuf messages
        The model that it belongs to, and the pipelines around that, outermost first.
    weight : LayerWeight
        The rest.
    """

    name: str
    function: str
    models: tuple[Any, ...]
    weight: LayerWeight


def network_layers(model: Any) -> Iterator[list[NetworkWeight]]:
    """The weights of a model, layer by layer; layers without weights are left out."""
    for where, models, network in _networks_of(model, "", ()):
        yield from _of_network(network, where, models)


def network_weights(model: Any) -> list[NetworkWeight]:
    """The weights of a model."""
    return [weight for layer in network_layers(model) for weight in layer]


def require_network(function: str, model: Any, what: str) -> None:
    """Raise unless a model has neural networks; the message says what else could be called."""
    if any(_networks_of(model, "", ())):
        return
    kind = model.WhichOneof("Type")
    if kind == "mlProgram":
        raise ValueError(f"{function}: {what} holds an ML program, which corepress.coreml.compress is for")
    if kind is None and not model.specificationVersion:
        raise FormatError(f"{function}: {what} is not a Core ML model")
    raise ValueError(f"{function}: {what} holds no neural network")


def updatable_part(model: Any) -> str | None:
    """What of a model is updatable, in words, or None."""
    if model.isUpdatable:
        return "it"
    return next(
        (
            f"its part {where.rstrip('/')}"
            for where, models, _ in _networks_of(model, "", ())
            if any(each.isUpdatable for each in models)
        ),
        None,
    )


def _networks_of(model: Any, where: str, outer: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...], Any]]:
    """The path of each network, the models around it, and the network."""
    kind = model.WhichOneof("Type")
    models = (*outer, model)
    if kind in _NETWORKS:
        yield where, models, getattr(model, kind)
    elif kind in _PIPELINES:
        pipeline = model.pipeline if kind == "pipeline" else getattr(model, kind).pipeline
        names = list(pipeline.names)
        if len(set(names)) != len(pipeline.models) or not all(names):
            names = [str(index) for index in range(len(pipeline.models))]
        for name, part in zip(names, pipeline.models, strict=True):
            yield from _networks_of(part, f"{where}{name}/", models)


def _of_network(network: Any, where: str, models: tuple[Any, ...]) -> Iterator[list[NetworkWeight]]:
    for layer in network.layers:
        found = [
            NetworkWeight(f"{layer.name}.{each.field}", where.rstrip("/"), models, each)
            for each in layer_weights(layer)
        ]
        if found:
            yield found
        for name, nested in nested_networks(layer):
            yield from _of_network(nested, f"{where}{layer.name}.{name}/", models)
