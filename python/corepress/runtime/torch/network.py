"""A neural network as a PyTorch module."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ...errors import FormatError, UnsupportedOperationError
from ...neural_network.held_values import HeldParams, HeldValues
from ...neural_network.layers import LayerWeight, layer_weights
from ...neural_network.weight_params import kind_of, read_half, read_weight
from . import layers  # noqa: F401  registers the layers
from .layers.registry import Given, builder_of
from .layers.shapes import integer
from .network_features import NetworkInputs, NetworkOutputs
from .schedule import ERRORS, OperationError, reason_of


class Environment(dict[str, Tensor]):
    """The values of a run by name, and how many iterations all its loops have had."""

    iterations = 0


Steps: TypeAlias = "Generator[tuple[str, Tensor], None, str | None]"

ITERATION_LIMIT = 1_000_000
"""Iterations of all loops in one run."""
_FALSE = 1e-6  # absolute values up to this are false
_JUMPS = ("loopBreak", "loopContinue")


class Layer(nn.Module):
    """One layer. Its weights are parameters, in their stored type, named as their fields.

    Attributes
    ----------
    label : str
        Its name and type, for messages.
    inputs, outputs : tuple of str
        Names of the values that it takes and makes.
    """

    _anchor: Tensor

    def __init__(self, message: Any, layer_type: str, where: str, held: HeldValues) -> None:
        super().__init__()
        self.label = label_of(message, layer_type, where)
        self.inputs, self.outputs = tuple(message.input), tuple(message.output)
        builder = builder_of(layer_type)
        if builder is None:
            raise UnsupportedOperationError(f"{self.label} cannot be run")
        try:
            for weight in layer_weights(message):
                self._parameters[_identifier(weight.field)] = nn.Parameter(_stored(weight, held))
            given = Given(
                layer_type,
                getattr(message, layer_type),
                len(self.inputs),
                len(self.outputs),
                frozenset(self._parameters),
            )
            self._run = builder(given)
        except UnsupportedOperationError as error:
            raise UnsupportedOperationError(f"{self.label}: {error}") from error
        except (FormatError, ValueError, IndexError, TypeError) as error:
            raise FormatError(f"{self.label}: {error}") from error
        self._require_fitting()
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._is_half = any(value.dtype != torch.float32 for value in self.parameters())

    def _require_fitting(self) -> None:
        """Raise if the numbers of inputs or the weights are not those that the layer needs."""
        arguments = self.inputs or ("anchor",)
        try:
            inspect.signature(self._run).bind(*arguments, **dict.fromkeys(self._parameters))
        except TypeError as error:
            found = f"{len(self.inputs)} inputs and weights {', '.join(sorted(self._parameters)) or 'none'}"
            raise FormatError(f"{self.label}: it cannot have {found} ({error})") from None

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the layer."""
        if not inputs:
            inputs = (self._anchor,)
        weights: Any = self._parameters
        if not weights:
            return self._run(*inputs)
        if self._is_half:
            weights = {name: value.float() for name, value in weights.items()}
        return self._run(*inputs, **weights)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Layer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        self._is_half = any(value.dtype != torch.float32 for value in self.parameters())
        return self

    def store(self, environment: Environment) -> None:
        """Compute the layer from named values, and store its own."""
        try:
            result = self(*[environment[name] for name in self.inputs])
        except KeyError as error:
            if error.args and error.args[0] in self.inputs:
                raise OperationError(f"{self.label}: no layer has computed its input {error.args[0]!r}") from None
            raise
        except ERRORS as error:
            if isinstance(error, OperationError | torch.OutOfMemoryError):
                raise
            raise OperationError(f"{self.label}: {reason_of(error)}") from error
        if isinstance(result, Tensor) and len(self.outputs) == 1:
            environment[self.outputs[0]] = _as_value(result)
            return
        results = (result,) if isinstance(result, Tensor) else result
        if len(results) < len(self.outputs):
            raise OperationError(f"{self.label}: it has {len(results)} outputs, not {len(self.outputs)}")
        for name, value in zip(self.outputs, results, strict=False):
            environment[name] = _as_value(value)

    def run(self, environment: Environment) -> Steps:
        """Compute and store, and yield what was stored."""
        self.store(environment)
        for name in self.outputs:
            yield name, environment[name]
        return None

    def names(self) -> Iterator[str]:
        """All values that it reads or makes."""
        yield from (*self.inputs, *self.outputs)


class Jump(nn.Module):
    """The end of a loop, or of one of its iterations."""

    def __init__(self, layer_type: str) -> None:
        super().__init__()
        self._kind = layer_type

    def run(self, environment: Environment) -> Steps:
        """Return the jump to the loop."""
        yield from ()
        return self._kind

    def names(self) -> Iterator[str]:
        """None."""
        yield from ()


class Branch(nn.Module):
    """One of two networks, chosen by a value."""

    def __init__(self, message: Any, where: str, held: HeldValues) -> None:
        super().__init__()
        self.label = label_of(message, "branch", where)
        if len(message.input) != 1:
            raise FormatError(f"{self.label}: it must have 1 input, not {len(message.input)}")
        self._condition = message.input[0]
        inside = f"{where}{message.name}."
        self.ifBranch = Block(message.branch.ifBranch.layers, f"{inside}ifBranch/", held)
        self.elseBranch = Block(message.branch.elseBranch.layers, f"{inside}elseBranch/", held)

    def run(self, environment: Environment) -> Steps:
        """Run one of the networks."""
        chosen = self.ifBranch if is_true(environment, self._condition, self.label) else self.elseBranch
        return (yield from chosen.run(environment))

    def names(self) -> Iterator[str]:
        """All values that it or its networks read or make."""
        yield self._condition
        yield from self.ifBranch.names()
        yield from self.elseBranch.names()


class Loop(nn.Module):
    """A network that is run as often as a number or a condition says."""

    def __init__(self, message: Any, where: str, held: HeldValues) -> None:
        super().__init__()
        params = message.loop
        self.label = label_of(message, "loop", where)
        counts = [name for name in message.input if name]  # coremltools writes an empty name for none
        if len(counts) > 1:
            raise FormatError(f"{self.label}: it must have 1 input or none, not {len(counts)}")
        self._count_name = counts[0] if counts else None
        self._count, self._condition_name = int(params.maxLoopIterations), params.conditionVar
        inside = f"{where}{message.name}."
        self.has_condition = bool(params.conditionVar)
        self.conditionNetwork = Block(params.conditionNetwork.layers, f"{inside}conditionNetwork/", held)
        self.bodyNetwork = Block(params.bodyNetwork.layers, f"{inside}bodyNetwork/", held)

    def run(self, environment: Environment) -> Steps:
        """Run the loop."""
        count: int | None = self._count
        if self._count_name is not None:
            count = integer(value_of(environment, self._count_name, self.label))
        elif self.has_condition and not count:
            count = None
        iterations = 0
        while count is None or iterations < count:
            if self.has_condition:
                yield from self.conditionNetwork.run(environment)
                if not is_true(environment, self._condition_name, self.label):
                    break
            environment.iterations += 1
            if environment.iterations > ITERATION_LIMIT:
                raise OperationError(f"{self.label}: it has not ended after {ITERATION_LIMIT} iterations, the limit")
            if (yield from self.bodyNetwork.run(environment)) == "loopBreak":
                break
            iterations += 1
        return None

    def names(self) -> Iterator[str]:
        """All values that it or its networks read or make."""
        yield from filter(None, (self._count_name, self._condition_name))
        yield from self.conditionNetwork.names()
        yield from self.bodyNetwork.names()


Node: TypeAlias = Layer | Jump | Branch | Loop


class Block(nn.Module):
    """The layers of a network, in order; each is a child, named as the layer."""

    def __init__(self, messages: Iterable[Any], where: str, held: HeldValues) -> None:
        super().__init__()
        self.nodes: list[str] = []
        for message in messages:
            name = self._free_name(message.name)
            self._modules[name] = _node(message, where, held)
            self.nodes.append(name)

    def _free_name(self, name: str) -> str:
        base = _identifier(name) or "layer"
        found, number = base, 1
        while found in self._modules or hasattr(nn.Module, found):
            number += 1
            found = f"{base}_{number}"
        return found

    def steps(self) -> list[Node]:
        """The layers in order."""
        return [self._modules[name] for name in self.nodes]  # type: ignore[misc]  # they are nodes

    def run(self, environment: Environment) -> Steps:
        """Run all layers, or those before a jump, and yield what they compute."""
        for node in self.steps():
            jump = yield from node.run(environment)
            if jump is not None:
                return jump
        return None

    def names(self) -> Iterator[str]:
        """All values that the layers read or make."""
        for node in self.steps():
            yield from node.names()


def _node(message: Any, where: str, held: HeldValues) -> Node:
    layer_type = message.WhichOneof("layer")
    if layer_type is None:
        raise UnsupportedOperationError(f"layer {where}{message.name!s}: its type is unknown")
    if layer_type == "custom":
        what = f"{label_of(message, layer_type, where)} of class {message.custom.className!r}"
        raise UnsupportedOperationError(f"{what} cannot be run: its code is not part of the model")
    if layer_type == "branch":
        return Branch(message, where, held)
    if layer_type == "loop":
        return Loop(message, where, held)
    if layer_type in _JUMPS:
        return Jump(layer_type)
    return Layer(message, layer_type, where, held)


def label_of(message: Any, layer_type: str, where: str) -> str:
    """A layer's name, place and type, for messages."""
    return f"layer {where}{message.name} ({layer_type})"


def _as_value(result: Tensor) -> Tensor:
    """What a layer computed, as the others see it: float32, with an axis at least."""
    if result.dtype is not torch.float32:
        result = result.float()
    return result if result.dim() else result.reshape(1)


def _identifier(name: str) -> str:
    """A name for a child or a parameter, which must have no dots."""
    return re.sub(r"\W+", "_", name).strip("_")


def _stored(weight: LayerWeight, held: HeldValues) -> Tensor:
    """A weight in its stored type; quantized ones are decoded."""
    params = HeldParams(weight.params, held)
    if kind_of(params) == "float16":
        return torch.from_numpy(read_half(params, weight.shape).copy())
    values = read_weight(params, weight.shape, weight.channel_axis)
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def value_of(environment: Environment, name: str, label: str) -> Tensor:
    """A value that a control-flow layer reads."""
    if name not in environment:
        raise OperationError(f"{label}: no layer has computed {name!r}")
    return environment[name]


def is_true(environment: Environment, name: str, label: str) -> bool:
    """Whether a value with one element is not zero."""
    value = value_of(environment, name, label)
    if value.numel() != 1:
        raise OperationError(f"{label}: its condition {name!r} must have one element, not shape {tuple(value.shape)}")
    return abs(float(value)) > _FALSE


class NetworkModule(nn.Module):
    """A neural network as a module.

    Its layers are children of ``layers``, under their names with underscores for what Python does not allow in names;
    their weights are parameters, in their stored type, and are widened to float32 where they are used.

    Inputs and outputs are tensors by name, in the layout of the model's features: arrays have the shapes that
    ``MLModel.predict`` takes and returns; images have shape (channels, height, width), or one more axis in front, and
    values from 0 to 255 in the declared order of colors. The score vector of a classifier is among the outputs under
    the name of its dictionary of probabilities; `classify` makes labels of it.

    Parameters
    ----------
    network : protobuf message
        The network, with all fields of its layers (`corepress.neural_network.layer_schema`).
    description : protobuf message
        The description of the model.
    held : HeldValues, optional
        The values that digests replace in the network.

    Attributes
    ----------
    class_labels : tuple of str or int, or None
        Labels of a classifier, in the order of its scores.
    label_name, scores_name : str
        Outputs of a classifier: the best label, and the scores; empty for other networks.

    Raises
    ------
    UnsupportedOperationError
        If a layer cannot be run, such as a custom layer.
    FormatError
        If a layer is damaged.
    """

    def __init__(self, network: Any, description: Any, held: HeldValues | None = None) -> None:
        super().__init__()
        self._features_in = NetworkInputs(network, description)
        self._features_out = NetworkOutputs(network, description)
        self.class_labels = self._features_out.class_labels
        self.label_name, self.scores_name = self._features_out.label_name, self._features_out.scores_name
        self.layers = Block(network.layers, "", HeldValues() if held is None else held)
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self._frees = self._last_uses()
        self._is_plain = all(isinstance(node, Layer) for node in self.layers.steps())

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self._buffers["_anchor"].device  # type: ignore[union-attr]  # it is set

    def _last_uses(self) -> list[tuple[str, ...]]:
        """For each layer, the values that nothing reads after it."""
        last: dict[str, int] = {}
        for index, node in enumerate(self.layers.steps()):
            last.update(dict.fromkeys(node.names(), index))
        for name in self._features_out.blobs.values():
            last.pop(name, None)
        frees: list[list[str]] = [[] for _ in self.layers.nodes]
        for name, index in last.items():
            frees[index].append(name)
        return [tuple(names) for names in frees]

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the outputs by name."""
        environment = Environment(self._features_in.environment(inputs))
        if self._is_plain:
            for node, names in zip(self.layers.steps(), self._frees, strict=True):
                assert isinstance(node, Layer)
                node.store(environment)
                for name in names:
                    environment.pop(name, None)
        else:
            deque(self._run(environment), maxlen=0)
        return self._features_out.collect(environment)

    def values(self, inputs: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """Run, and yield each value and its name as it is computed, those of loops and branches included."""
        return self._run(Environment(self._features_in.environment(inputs)))

    def _run(self, environment: Environment) -> Iterator[tuple[str, Tensor]]:
        for node, names in zip(self.layers.steps(), self._frees, strict=True):
            if (yield from node.run(environment)) is not None:
                return
            for name in names:
                environment.pop(name, None)

    def classify(self, scores: Tensor) -> tuple[Any, dict[Any, float]]:
        """The label with the highest score, and all scores by label."""
        return self._features_out.classify(scores)
