"""Which tensors of a model are quantized in quantization-aware training, and what shares a range.

A convolution or linear layer, the batch normalization and the activation that follow it are one step: what goes in and
what comes out are quantized, nothing in between. So are sums, products and separate activations. Pooling,
reshaping, concatenation and the like have one range for what goes in and what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import nn

from .dataflow import Call, Recording, Value

Options = TypeVar("Options")

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)  # their inputs are integers: only weights are quantized
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_NORM_OF: dict[Any, Any] = {nn.Linear: nn.BatchNorm1d} | {
    kind: BATCH_NORMS[index] for kinds in (CONVOLUTIONS, TRANSPOSED) for index, kind in enumerate(kinds)
}
# The scale and the zero point of what is known to lie between 0 and 1, or -1 and 1.
_FIXED: dict[Any, tuple[float, int]] = {
    **dict.fromkeys((nn.Sigmoid, nn.Hardsigmoid, nn.Softmax, "sigmoid", "hardsigmoid"), (1 / 256, 0)),
    **dict.fromkeys((nn.Tanh, "tanh"), (2 / 256, 128)),
}
FIXED_MODULES = tuple(kind for kind in _FIXED if isinstance(kind, type))
_RECTIFIERS = {nn.ReLU, nn.ReLU6, "relu", "relu6"}
ACTIVATIONS: frozenset[Any] = frozenset(
    {
        *_RECTIFIERS,
        *_FIXED,
        *(nn.PReLU, nn.RReLU, nn.LeakyReLU, nn.LogSigmoid, nn.SiLU, nn.ELU, nn.CELU, nn.SELU, nn.GLU, nn.Mish, nn.GELU),
        *(nn.Hardtanh, nn.LogSoftmax, nn.Hardswish),
        *("prelu", "rrelu", "leaky_relu", "logsigmoid", "silu", "elu", "celu", "selu", "glu", "mish", "gelu", "exp2"),
        *("hardtanh", "log_softmax", "hardswish"),
    }
)
_SUMS = {"add", "iadd", "radd", "mul", "imul", "rmul"}
_PRODUCTS = {"matmul", "rmatmul", "bmm", "einsum"}
_DIFFERENCES = {"sub", "isub", "rsub"}
_BINARY = _SUMS | _PRODUCTS | _DIFFERENCES
_DROPOUTS = {nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, "dropout", "dropout1d", "dropout2d", "dropout3d"}
# What returns some of the values that it takes, which are quantized already if those are.
_MOVES: frozenset[Any] = frozenset(
    {
        *_DROPOUTS,
        *(
            nn.Identity,
            nn.Flatten,
            nn.Unflatten,
            nn.MaxPool1d,
            nn.MaxPool2d,
            nn.MaxPool3d,
            nn.PixelShuffle,
            nn.ZeroPad2d,
        ),
        *(
            "max_pool1d",
            "max_pool2d",
            "max_pool3d",
            "flatten",
            "unflatten",
            "cat",
            "concat",
            "reshape",
            "view",
            "permute",
        ),
        *("transpose", "squeeze", "unsqueeze", "contiguous", "movedim", "clone", "pixel_shuffle", "chunk", "split"),
        *("getitem", "unbind"),
    }
)
# What returns means of the values that it takes.
_MEANS: frozenset[Any] = frozenset(
    {
        *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *("avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d"),
        *("adaptive_avg_pool3d", "mean"),
    }
)
SUPPORTED: frozenset[Any] = frozenset(
    kind
    for kind in {*WEIGHTED, *EMBEDDINGS, *BATCH_NORMS, *ACTIVATIONS, *_MOVES, *_MEANS} - _DROPOUTS
    if isinstance(kind, type)
)


@dataclass(eq=False)
class Range(Generic[Options]):
    """What has one scale and zero point.

    Attributes
    ----------
    options : Options
        Of the first call in it.
    fixed : (float, int), optional
        Scale and zero point, if they are known.
    nonnegative : bool
        Whether all values in it are.
    """

    options: Options
    fixed: tuple[float, int] | None = None
    nonnegative: bool = False


@dataclass(eq=False)
class Placement(Generic[Options]):
    """A tensor that is quantized as an argument or as the result of a module.

    Attributes
    ----------
    call : Call
        Of the module.
    argument : int, str or None
        None is the result.
    item : int or None
        Of a result that is a tuple: which of its tensors.
    range : Range
    observe : bool
        Whether this tensor counts for the range; one that is made of quantized ones does not.
    redundant : bool
        Whether the values are quantized already. Conversion needs these too, to see quantized inputs at each step.
    """

    call: Call
    argument: int | str | None
    item: int | None
    range: Range[Options]
    observe: bool
    redundant: bool


@dataclass(eq=False)
class Plan(Generic[Options]):
    """What is quantized.

    Attributes
    ----------
    placements : list of Placement
    times : dict of torch.nn.Module to int
        How often each module is called in a forward pass.
    ranges : list of Range or None
        In the order in which quantized tensors are made; a range is there for each of its tensors, and None is
        for one after dropout.
    batch_norms : list of (torch.nn.Module, torch.nn.Module)
        Convolutions and linear layers with the batch normalizations that can be folded into them.
    """

    placements: list[Placement[Options]] = field(default_factory=list)
    times: dict[nn.Module, int] = field(default_factory=dict)
    ranges: list[Range[Options] | None] = field(default_factory=list)
    batch_norms: list[tuple[nn.Module, nn.Module]] = field(default_factory=list)


@dataclass(eq=False)
class _Step(Generic[Options]):
    """Calls that are one step."""

    calls: list[Call]
    options: Options | None

    @property
    def result(self) -> Value:
        return self.calls[-1].outputs[0]

    @property
    def last_kind(self) -> Any:
        return self.calls[-1].kind


def _only_consumer(value: Value) -> Call | None:
    return value.consumers[0] if len(value.consumers) == 1 else None


def _foldable(call: Call, following: Call, times: dict[nn.Module, int]) -> bool:
    norm: Any = following.module
    if norm is None or call.module is None or _NORM_OF.get(call.kind) is not following.kind or not following.traced:
        return False
    channels = getattr(call.module, "out_channels", None) or getattr(call.module, "out_features", None)
    return (
        norm.num_features == channels
        and norm.running_var is not None
        and times[call.module] == times[norm] == 1
        and not (call.kind is nn.Linear and len(call.outputs[0].shape) != 2)
    )


def plan(recording: Recording, options_of: Callable[[Call], Options | None]) -> Plan[Options]:
    """Return which tensors are quantized.

    Parameters
    ----------
    recording : Recording
    options_of : function
        The options for the activations of a call, or None if they are not quantized.
    """
    calls, times = recording.calls, recording.times()
    made: Plan[Options] = Plan(times=times)
    steps: list[_Step[Options]] = []
    taken: set[Call] = set()
    for call in calls:
        if call in taken or not call.traced or not call.single:
            continue
        kind = call.kind
        if not (kind in WEIGHTED or kind in BATCH_NORMS or kind in ACTIVATIONS or kind in _BINARY):
            continue
        members = [call]
        following = _only_consumer(call.outputs[0])
        if kind in WEIGHTED and following is not None and _foldable(call, following, times):
            made.batch_norms.append((call.module, following.module))  # type: ignore[arg-type]
            members.append(following)
            following = _only_consumer(following.outputs[0])
        fusible = kind not in ACTIVATIONS and kind not in _DIFFERENCES
        if fusible and following is not None and following.kind in ACTIVATIONS and following.traced:
            members.append(following)
        taken.update(members)
        steps.append(_Step(members, options_of(call)))
    _place(made, recording, steps)
    return made


def _place(made: Plan[Options], recording: Recording, steps: list[_Step[Options]]) -> None:
    """Complete a plan by what is quantized where."""
    calls = recording.calls
    options: dict[Value, Options] = {}
    order: list[Value] = []

    def want(value: Value, given: Options) -> None:
        if value not in options and value.is_float and (value.producer is not None or value.is_input):
            options[value] = given
            order.append(value)

    step_of = {step.calls[0]: step for step in steps}
    inner = {call for step in steps for call in step.calls}
    hidden = {value for step in steps for call in step.calls[:-1] for value in call.outputs}
    for call in calls:
        step = step_of.get(call)
        if step is not None and step.options is not None:
            for value in call.inputs:
                want(value, step.options)
            want(step.result, step.options)
        elif call not in inner and call.traced and (call.kind in _MOVES or call.kind in _MEANS):
            shared = [options[value] for value in call.inputs if value in options]
            for value in call.outputs if shared else ():
                want(value, shared[0])
    groups = _Groups()
    for call in calls:
        if call not in inner and (call.kind in _MOVES or call.kind in _MEANS):
            values = [value for value in (*call.inputs, *call.outputs) if value.is_float and value not in hidden]
            for value in values[1:]:
                groups.join(values[0], value)
    ranges = _ranges(order, options, groups, calls, {step.result: step for step in steps})
    placed: set[Value] = set()
    quantized_calls = {step.calls[0] for step in steps if step.options is not None}
    for value in order:
        producer = value.producer
        follows = producer is not None and producer not in inner and all(each in placed for each in producer.inputs)
        moved = follows and producer is not None and producer.kind in _MOVES
        dropped = moved and producer is not None and producer.kind in _DROPOUTS
        made.ranges.append(None if dropped else ranges[groups.root(value)])
        spots = _spots(value, recording, quantized_calls)
        if dropped:  # in inference these are the values before
            placed.add(value)
            continue
        for index, (call, argument, item) in enumerate(spots):
            observe = index == 0 and not follows
            made.placements.append(Placement(call, argument, item, ranges[groups.root(value)], observe, bool(moved)))
        if spots:
            placed.add(value)


def _spots(
    value: Value, recording: Recording, quantized_calls: set[Call]
) -> list[tuple[Call, int | str | None, int | None]]:
    """Return the modules' arguments and results at which a tensor can be quantized, in the order of execution."""
    producer = value.producer
    if producer is not None and producer.module is not None and producer.single and producer.traced:
        return [(producer, None, None)]
    model = recording.containers[0] if recording.containers else None
    if value.is_input and model is not None:
        functions = any(each.module is None and each in quantized_calls for each in value.consumers)
        named = [key for key, each in model.arguments.items() if each is value]
        if functions and named:
            return [(model, named[0], None)]
    found: list[tuple[Call, int | str | None, int | None]] = []
    container, item = value.returned_by or (None, None)
    for consumer in dict.fromkeys(value.consumers):
        if container is not None and consumer.begin >= container.end:
            continue  # it takes what the container returns
        if consumer.module is not None and consumer.traced:
            found += [(consumer, key, None) for key, each in consumer.arguments.items() if each is value]
    if container is not None:
        found.append((container, None, item))
    return found


class _Groups:
    """Sets of values with one range."""

    def __init__(self) -> None:
        self._parents: dict[Value, Value] = {}

    def root(self, value: Value) -> Value:
        while value in self._parents:
            value = self._parents[value]
        return value

    def join(self, one: Value, other: Value) -> None:
        one, other = self.root(one), self.root(other)
        if one is not other:
            self._parents[other] = one


def _ranges(
    order: list[Value],
    options: dict[Value, Options],
    groups: _Groups,
    calls: list[Call],
    step_of: dict[Value, _Step[Options]],
) -> dict[Value, Range[Options]]:
    """Return the range of each group of values, by its root."""
    sources: dict[Value, list[Value]] = {}  # the values that the others of a group are made of
    shares = {value for call in calls if call.kind in _MOVES or call.kind in _MEANS for value in call.outputs}
    members: dict[Value, list[Value]] = {}
    every = dict.fromkeys(value for call in calls for value in (*call.inputs, *call.outputs) if value.is_float)
    for value in every:
        members.setdefault(groups.root(value), []).append(value)
    for root, values in members.items():
        sources[root] = [value for value in values if value not in shares or value in step_of] or values
    known: dict[Value, bool] = {}

    def nonnegative(root: Value) -> bool:
        if root not in known:
            known[root] = False
            known[root] = all(_nonnegative(value) for value in sources[root])
        return known[root]

    def _nonnegative(value: Value) -> bool:
        step = step_of.get(value)
        kind = step.last_kind if step is not None else value.producer and value.producer.kind
        if kind in _RECTIFIERS or (kind in _FIXED and _FIXED[kind][1] == 0):
            return True
        if kind in _SUMS and value.producer is not None:
            inputs = [each for each in value.producer.inputs if each.is_float]
            return len(inputs) > 1 and all(nonnegative(groups.root(each)) for each in inputs)
        return False

    def fixed(root: Value) -> tuple[float, int] | None:
        kinds = [step_of[value].last_kind if value in step_of else None for value in sources[root]]
        found = {_FIXED.get(kind) for kind in kinds}
        return found.pop() if len(found) == 1 else None

    ranges: dict[Value, Range[Options]] = {}
    for value in order:
        root = groups.root(value)
        if root not in ranges:
            ranges[root] = Range(options[value], fixed(root), nonnegative(root))
    return ranges
