"""Pairs of `quantize` and `dequantize` around operations: where they belong, and putting them into a program.

Places and order are those of coremltools' passes ``insert_prefix_quantize_dequantize_pair``,
``insert_suffix_quantize_dequantize_pair`` and ``dequantize_quantize_pair_elimination``: a pair before each input that a
run computes, a pair after the operation, or after the activation that follows it, unless all that takes the result
quantizes it anyway; and of two pairs of the same parameters in a row, one `quantize`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...engine.activations import ActivationRecord, PairParameters
from ..format.data_types import BY_NAME
from ..format.schema import Operation as OperationMessage
from ..format.values import Tensor, inline_value
from .graph import Block, Function, Literal, Operation, TensorType, Value, is_definition
from .raising import constant_operation, text_value

# The inputs that are quantized, by type of operation.
OPERANDS: dict[str, tuple[str, ...]] = {
    "conv": ("x",),
    "linear": ("x",),
    "avg_pool": ("x",),
    "max_pool": ("x",),
    "add": ("x", "y"),
    "conv_transpose": ("x",),
    "matmul": ("x", "y"),
    "scaled_dot_product_attention": ("query", "key", "value"),
}
DEFAULT_OPERATIONS = ("conv", "linear", "avg_pool", "max_pool", "add")
# Results of these are quantized too; those of the others go where integers lose too much, as to a softmax.
WITH_RESULT = (*DEFAULT_OPERATIONS, "conv_transpose")
# Followed by one of these, the result of that is quantized instead.
ACTIVATIONS = ("leaky_relu", "tanh", "scaled_tanh", "sigmoid", "hard_sigmoid", "relu", "relu6")
_ALL_OF_THEM = ("add", "scaled_dot_product_attention")  # operations that need all their inputs computed by the run
ALREADY_QUANTIZED = "already quantized"
_FLOATS = ("float16", "float32")


class NoParameters(Exception):
    """A value cannot be quantized; the message says why."""


Parameters = Callable[[Operation, Value], PairParameters]  # raises `NoParameters`


@dataclass(eq=False)
class _Pair:
    """A pair to insert: `quantize` of a value, and a `dequantize` for those that take it."""

    value: Value
    parameters: PairParameters


class PairInsertion:
    """Decides about every operation of a function, and puts the pairs in.

    Parameters
    ----------
    function : Function
        The function; its messages are changed by `insert`.
    chosen : callable
        Given an operation of a type in `OPERANDS`: None, or why it is left alone.
    parameters : callable
        Given an operation and a value: how to quantize it; raises `NoParameters`.
    taken : set of str
        All names of values in the function; new ones are added.
    path : str
        How records name the function.
    result : callable, optional
        Given an operation whose inputs are quantized: None, or why its result is not.
    """

    def __init__(
        self,
        function: Function,
        chosen: Callable[[Operation], str | None],
        parameters: Parameters,
        taken: set[str],
        path: str,
        result: Callable[[Operation], str | None] = lambda operation: None,
    ) -> None:
        self._function, self._chosen, self._parameters = function, chosen, parameters
        self._taken, self._path, self._result = taken, path, result
        self._consumers: dict[Value, list[tuple[Operation, str]]] = defaultdict(list)
        self._before: dict[tuple[Operation, str], _Pair] = {}
        self._after: dict[Value, _Pair] = {}
        self._records: dict[Operation, ActivationRecord] = {}
        for operation in function.operations():
            for name, arguments in operation.inputs.items():
                for argument in arguments:
                    if isinstance(argument, Value):
                        self._consumers[argument].append((operation, name))

    def insert(self) -> tuple[ActivationRecord, ...]:
        """Put the pairs in; one record for each operation of a type in `OPERANDS`."""
        candidates = [each for each in self._function.operations() if each.type in OPERANDS]
        for operation in candidates:
            self._records[operation] = self._plan_before(operation)
        for operation in candidates:
            if self._is_quantized(operation):
                self._plan_after(operation)
        _Edit(self._function, self._consumers, self._before, self._after, self._taken).run()
        return tuple(self._records.values())

    def _record(self, operation: Operation, reason: str | None, **details: Any) -> ActivationRecord:
        status = "kept" if reason is not None else "quantized"
        return ActivationRecord(operation.name, operation.type, self._path, status, reason, **details)

    def _plan_before(self, operation: Operation) -> ActivationRecord:
        reason = self._chosen(operation)
        if reason is not None:
            return self._record(operation, reason)
        try:
            pairs = dict(self._pairs_before(operation))
        except NoParameters as failure:
            return self._record(operation, str(failure))
        self._before |= {(operation, name): pair for name, pair in pairs.items() if pair is not None}
        found = {pair.value.name: pair.parameters for pair in pairs.values() if pair is not None}
        return self._record(operation, None if found else ALREADY_QUANTIZED, inputs=found)

    def _pairs_before(self, operation: Operation) -> Iterator[tuple[str, _Pair | None]]:
        """The pairs of its inputs; None for inputs that are quantized already."""
        computed = 0
        for name in OPERANDS[operation.type]:
            arguments = operation.inputs.get(name, ())
            argument = arguments[0] if len(arguments) == 1 else None
            if isinstance(argument, Literal) or (isinstance(argument, Value) and _is_constant(argument)):
                if operation.type in _ALL_OF_THEM:
                    raise NoParameters(f"its input {name} is a constant")
                continue
            if not isinstance(argument, Value) or not isinstance(argument.type, TensorType):
                raise NoParameters(f"its input {name} is not known to be a tensor")
            if argument.type.data_type.name not in _FLOATS:
                raise NoParameters(f"its input {name} is {argument.type.data_type.name}")
            computed += 1
            if argument.producer is not None and argument.producer.type == "dequantize":
                yield name, None
                continue
            try:
                parameters = self._parameters(operation, argument)
            except NoParameters as failure:
                raise NoParameters(f"{argument.name} {failure}") from None
            yield name, _Pair(argument, parameters)
        if not computed:
            raise NoParameters("its inputs are constants")

    def _is_quantized(self, operation: Operation) -> bool:
        """Whether its inputs come from a `dequantize`, in the end or from the beginning."""
        record = self._records[operation]
        return record.status == "quantized" or record.reason == ALREADY_QUANTIZED

    def _plan_after(self, operation: Operation) -> None:
        if operation.type not in WITH_RESULT or len(operation.outputs) != 1:
            return
        last = operation
        if self._is_quantized_by_all(operation):
            return
        plain = self._plain_consumers(operation.outputs[0])
        follower = plain[0] if plain else None
        if not self._consumers[operation.outputs[0]]:
            return
        if follower is not None and follower.type in ACTIVATIONS and len(follower.outputs) == 1:
            if self._is_quantized_by_all(follower):
                return
            if self._consumers[follower.outputs[0]]:
                last = follower
        value = last.outputs[0]
        if value in self._after:
            return
        if (reason := self._result(operation)) is not None:
            self._records[operation] = replace(self._records[operation], result_reason=reason)
            return
        try:
            parameters = self._parameters(operation, value)
        except NoParameters:
            return
        self._after[value] = _Pair(value, parameters)
        record = replace(self._records[operation], output=value.name, output_parameters=parameters)
        self._records[operation] = record

    def _plain_consumers(self, value: Value) -> list[Operation]:
        """Operations that take a value as it is."""
        return [operation for operation, name in self._consumers[value] if (operation, name) not in self._before]

    def _is_quantized_by_all(self, operation: Operation) -> bool:
        """Whether the one operation that takes the result quantizes it."""
        value = operation.outputs[0]
        if len(self._consumers[value]) != 1:
            return False
        plain = self._plain_consumers(value)
        return not plain or plain[0].type == "quantize"


def _is_constant(value: Value) -> bool:
    return value.producer is not None and is_definition(value.producer.message)


class _Edit:
    """Adds the operations of pairs to the blocks of a function, and lets those that take the values take them.

    What takes a value with the same parameters shares one pair, as after coremltools' pass ``remove_redundant_ops``.
    """

    def __init__(
        self,
        function: Function,
        consumers: dict[Value, list[tuple[Operation, str]]],
        before: dict[tuple[Operation, str], _Pair],
        after: dict[Value, _Pair],
        taken: set[str],
    ) -> None:
        self._function, self._taken = function, taken
        self._behind: dict[int, list[Any]] = defaultdict(list)  # by the operation's or block's message
        self._pairs: dict[tuple[str, PairParameters], str] = {}
        self._consumers, self._before, self._after = consumers, before, after
        self._blocks = {value: block for block in _blocks(function.block) for value in block.inputs}

    def run(self) -> None:
        """Change the messages."""
        values = dict.fromkeys((*self._after, *(pair.value for pair in self._before.values())))
        for value in values:
            after = self._after.get(value)
            for consumer in self._consumers[value]:
                pair = self._before.get(consumer, after)
                if pair is None:
                    continue
                source = value.name
                if after is not None and pair.parameters != after.parameters:
                    source = self._dequantized(value, source, after.parameters)
                name = self._dequantized(value, source, pair.parameters)
                _rebind(*consumer, value.name, name)
        self._rebuild(self._function.block)

    def _dequantized(self, value: Value, source: str, parameters: PairParameters) -> str:
        """The name of a value after a pair, which is made if there is none yet."""
        key = source, parameters
        if key not in self._pairs:
            owner = self._blocks[value].message if value.producer is None else value.producer.message
            constants = _Constants(value, parameters, self._name(f"{value.name}_quantized"))
            self._taken.update(constants.names)
            self._pairs[key] = name = self._name(f"{value.name}_dequantized")
            self._behind[id(owner)] += [*constants.operations, constants.quantize(source), constants.dequantize(name)]
        return self._pairs[key]

    def _name(self, base: str) -> str:
        """A name that no value of the function has, nor those of its constants."""
        name, number = base, 1
        while not self._taken.isdisjoint((name, *(f"{name}_{part}" for part in _Constants.parts))):
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        return name

    def _rebuild(self, block: Block) -> None:
        for operation in block.operations:
            for nested in operation.blocks:
                self._rebuild(nested)
        message = block.message
        changed = list(self._behind[id(message)])
        for each in message.operations:
            changed += [each, *self._behind[id(each)]]
        if len(changed) > len(message.operations):  # at once, since to insert each would move all that follow
            copies = [_copy(each) for each in changed]
            del message.operations[:]
            message.operations.extend(copies)


def _blocks(block: Block) -> Iterator[Block]:
    yield block
    for operation in block.operations:
        for nested in operation.blocks:
            yield from _blocks(nested)


class _Constants:
    """The constants of a pair, and its operations."""

    parts = ("scale", "zero_point", "output_dtype")

    def __init__(self, value: Value, parameters: PairParameters, name: str) -> None:
        assert isinstance(value.type, TensorType)
        self.name, self._type = name, value.type
        values = {"scale": _scalar(parameters.scale, value.type.data_type.name)}
        if parameters.zero_point is not None:
            values["zero_point"] = _scalar(parameters.zero_point, parameters.dtype)
        values["output_dtype"] = text_value(parameters.dtype)
        self._names = {part: f"{name}_{part}" for part in values}
        self._levels = BY_NAME[parameters.dtype]
        self.operations = [constant_operation(self._names[part], value) for part, value in values.items()]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constants."""
        return tuple(self._names.values())

    def quantize(self, given: str) -> Any:
        """The operation that yields the levels of a value, under the name of the pair."""
        return self._operation("quantize", given, self.name, self._levels.program_number)

    def dequantize(self, name: str) -> Any:
        """The operation that yields such a value again."""
        return self._operation("dequantize", self.name, name, self._type.data_type.program_number)

    def _operation(self, kind: str, given: str, name: str, data_type: int) -> Any:
        message = OperationMessage(type=kind)
        output = message.outputs.add(name=name).type.tensorType
        output.dataType = data_type
        shape = self._type.shape
        output.rank = -1 if shape is None else len(shape)
        for size in shape or ():
            dimension = output.dimensions.add()
            if size is None:
                dimension.unknown.SetInParent()
            else:
                dimension.constant.size = size
        message.inputs["input"].arguments.add().name = given
        for part, constant in self._names.items():
            if part != "output_dtype" or kind == "quantize":
                message.inputs[part].arguments.add().name = constant
        message.attributes["name"].CopyFrom(text_value(name))
        return message


def _scalar(value: float | int, data_type: str) -> Any:
    return inline_value(Tensor.of(np.asarray(value, BY_NAME[data_type].dtype)))


def _rebind(operation: Operation, operand: str, name: str, new: str) -> None:
    for binding in operation.message.inputs[operand].arguments:
        if binding.WhichOneof("binding") == "name" and binding.name == name:
            binding.name = new


def _copy(message: Any) -> Any:
    result = type(message)()
    result.CopyFrom(message)
    return result


def observed_values(function: Function) -> set[str]:
    """Names of the values whose ranges decide about pairs, for all types of operations that may get them."""
    found: set[str] = set()
    for operation in function.operations():
        if operation.type in OPERANDS:
            for operand in OPERANDS[operation.type]:
                found.update(_observable(operation.inputs.get(operand, ())))
        if operation.type in OPERANDS or operation.type in ACTIVATIONS:
            found.update(_observable(operation.outputs))
        if operation.type == "concat":
            found.update(_observable((*operation.inputs.get("values", ()), *operation.outputs)))
    return found


def _observable(values: Any) -> Iterator[str]:
    for each in values:
        is_computed = isinstance(each, Value) and isinstance(each.type, TensorType) and not _is_constant(each)
        if is_computed and each.type.data_type.name in _FLOATS:
            yield each.name


def concat_groups(function: Function) -> list[list[str]]:
    """For each concatenation, the names of what it takes and yields, which are to have one range.

    As in coremltools, not for those whose result is an output of the function.
    """
    outputs = set(function.block.outputs)
    return [
        list(_observable((*operation.inputs.get("values", ()), *operation.outputs)))
        for operation in function.operations()
        if operation.type == "concat" and outputs.isdisjoint(operation.outputs)
    ]
