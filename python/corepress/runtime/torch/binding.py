"""From the graph of a function to a schedule: its arguments are bound to slots and constants when a model is loaded."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...coreml.program.graph import (
    Argument,
    Block,
    Function,
    Literal,
    Operation,
    StateType,
    TensorType,
    Unresolved,
    Value,
    is_definition,
)
from ...errors import FormatError, UnsupportedOperationError
from .constants import Constants, describe_operation
from .constexpr import OPERATIONS
from .dtypes import carrier_of, widened
from .dtypes import rounded as rounded_to_float16
from .registry import Implementation, implementation_of
from .schedule import ITERATIONS, RESERVED, Schedule, Step, Values, slots_read

# Inputs that take any number of values, where one value cannot be told from a tuple of one.
_TUPLES = frozenset({"values", "loop_vars", "ref_tensors", "begins", "ends", "end_masks", "elem_shape"})
_TUPLED_OPERATIONS = frozenset({"concat", "stack", "einsum", "while_loop", "reshape_like", "make_list"})
MOST_ITERATIONS = 1_000_000  # of all loops in a run, one of which then must be without end

Getter = Callable[[Values], Any]


class BoundFunction:
    """A function whose operations are bound to slots.

    Attributes
    ----------
    schedule : Schedule
        Its steps.
    template : list
        The values before a run: constants; None where a run stores its own.
    weights : dict of int to str
        Slots of weights, whose values the module holds, and their names; weights that share data have one name.
    tensors : dict of str to torch.Tensor
        The weights by name, in their stored type.
    inputs : dict of str to Value
        The function's inputs by name.
    outputs : dict of str to Value
        The function's outputs by name.
    """

    def __init__(self, function: Function, constants: Constants, *, rounded: bool) -> None:
        self._version = function.version
        self._constants = constants
        self._rounded = rounded
        self._slots: dict[Value, int] = {}
        self.template: Values = [None] * RESERVED
        self.weights: dict[int, str] = {}
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Tensor, str] = {}
        self.template[ITERATIONS] = 0
        self.inputs = {value.name: value for value in function.block.inputs}
        self.outputs = {value.name: value for value in map(_resolved, function.block.outputs)}
        self.schedule, _ = self._bind_block(function.block)

    def slot(self, argument: Argument) -> int:
        """The slot of a value."""
        value = _resolved(argument)
        if value not in self._slots:
            self._slots[value] = len(self.template)
            self.template.append(None)
            if self._constants.is_constant(value):
                self._load(value)
        return self._slots[value]

    def weight_name(self, value: Value) -> str | None:
        """The name of the module's parameter that a constant is; None for constants that are none, or not used."""
        return self.weights.get(self._slots.get(value, -1))

    def _load(self, value: Value) -> None:
        slot = self._slots[value]
        if self._constants.is_weight(value):
            tensor = self._constants.weight(value)
            self.weights[slot] = self._names.setdefault(tensor, self._free_name(value.name))
            self.tensors[self.weights[slot]] = tensor
        else:
            self.template[slot] = self._constants.tensor(value)

    def _free_name(self, name: str) -> str:
        """The name of a constant, numbered where another one in another block has it too."""
        names = (f"{name}_{number}" if number else name for number in itertools.count())
        return next(each for each in names if each not in self.tensors)

    def _bind_block(self, block: Block) -> tuple[Schedule, list[set[int]]]:
        schedule = Schedule(inputs=tuple(map(self.slot, block.inputs)))
        reads: list[set[int]] = []
        for operation in block.operations:
            if is_definition(operation.message):
                continue
            step, read = self._bind(operation)
            schedule.steps.append(step)
            reads.append(read)
        schedule.outputs = tuple(map(self.slot, block.outputs))
        schedule.plan_frees(reads)
        return schedule, reads

    def _bind(self, operation: Operation) -> tuple[Step, set[int]]:
        _require_kinds(operation)
        slots = {
            name: tuple(self.slot(each) for each in arguments if not isinstance(each, Literal))
            for name, arguments in operation.inputs.items()
            if not all(map(self._constants.is_constant, arguments))
        }
        read = {slot for each in slots.values() for slot in each}
        outputs = tuple(map(self.slot, operation.outputs))
        if operation.type in STRUCTURES:
            blocks, nested_reads = [], set[int]()
            for block in operation.blocks:
                schedule, reads = self._bind_block(block)
                blocks.append(schedule)
                nested_reads |= slots_read([schedule], reads) | set(schedule.outputs)
            run = STRUCTURES[operation.type](self, operation, blocks, outputs)
            return Step(operation, run, slots, outputs), read | nested_reads
        found = implementation_of(operation.type, self._version)
        if found is None or operation.blocks:
            raise UnsupportedOperationError(f"{describe_operation(operation, self._version)} cannot be run")
        return Step(operation, self._bind_call(operation, found, outputs), slots, outputs), read

    def _bind_call(self, operation: Operation, found: Implementation, outputs: tuple[int, ...]) -> Callable[..., None]:
        unknown = operation.inputs.keys() - found.values.keys() - found.options
        missing = [name for name in found.required if name not in operation.inputs]
        if unknown or missing:
            what = f"has an input {min(unknown)!r}" if unknown else f"has no input {missing[0]!r}"
            raise FormatError(f"{operation.where}: {what}, which its version {'lacks' if unknown else 'requires'}")
        options: dict[str, Any] = {}
        computed: dict[str, Getter] = {}
        for name in found.options & operation.inputs.keys():
            if all(map(self._constants.is_constant, operation.inputs[name])):
                options[name] = self._option(operation, name)
            else:
                computed[name] = self._computed_option(operation, name)
        call = functools.partial(found.function, **options) if options else found.function
        finish = self._finish(operation, found.exact)
        return _compose(call, self._values(operation, found), computed, finish, outputs)

    def _option(self, operation: Operation, name: str) -> Any:
        given = [self._constants.option(each) for each in operation.inputs[name]]
        return given if _is_tuple(operation, name) else _only(operation, name, given)

    def _computed_option(self, operation: Operation, name: str) -> Getter:
        getters = [self.getter(each) for each in operation.inputs[name]]
        if _is_tuple(operation, name):
            return lambda values: [_plain(getter(values)) for getter in getters]
        getter = _only(operation, name, getters)
        return lambda values: _plain(getter(values))

    def getter(self, argument: Argument) -> Getter:
        """How a run gets an argument."""
        if isinstance(argument, Literal):
            constant = self._constants.tensor(argument)
            return lambda values: constant
        slot = self.slot(argument)
        if slot in self.weights:
            return lambda values: widened(values[slot])
        return lambda values: values[slot]

    def getters(self, operation: Operation, name: str) -> list[Getter]:
        """How a run gets the values of a tuple."""
        return [self.getter(each) for each in operation.inputs.get(name, ())]

    def only_getter(self, operation: Operation, name: str) -> Getter:
        """How a run gets an argument that is one value."""
        getter: Getter = _only(operation, name, self.getters(operation, name))
        return getter

    def _values(self, operation: Operation, found: Implementation) -> list[Any]:
        """For each parameter up to the last one that is given: its slot, or how to get it."""
        bound: list[Any] = []
        given = [name for name in found.values if name in operation.inputs]
        last = given[-1] if given else None
        for name, default in found.values.items():
            if last is None:
                break
            arguments = operation.inputs.get(name)
            if arguments is None:
                bound.append(lambda values, default=default: default)
            elif _is_tuple(operation, name):
                getters = [self.getter(each) for each in arguments]
                bound.append(lambda values, getters=getters: [getter(values) for getter in getters])
            else:
                argument = _only(operation, name, arguments)
                plain = not isinstance(argument, Literal) and (
                    found.stored_weights or self.slot(argument) not in self.weights
                )
                bound.append(self.slot(argument) if plain else self.getter(argument))
            if name == last:
                break
        return bound

    def _finish(self, operation: Operation, exact: bool) -> list[Callable[[Any], Any]]:
        """For each output, its conversion to the declared type."""
        return [_conversion(value, self._rounded and not exact) for value in operation.outputs]


def _require_kinds(operation: Operation) -> None:
    """Raise FormatError if an operation takes a state as a tensor, or a tensor as a state."""
    for name, arguments in operation.inputs.items():
        takes_state = name == "input" and operation.type in ("read_state", "write_state")
        for each in arguments:
            is_state = isinstance(each, Value) and isinstance(each.type, StateType)
            if is_state != takes_state and not isinstance(each, Unresolved):
                what = "a state" if takes_state else "a tensor"
                raise FormatError(f"{operation.where}: its input {name!r} must be {what}; {_name(each)} is not")


def _name(argument: Argument) -> str:
    return repr(argument.name) if isinstance(argument, Value) else "a constant"


def _resolved(argument: Argument) -> Value:
    if isinstance(argument, Unresolved):
        raise FormatError(f"the program takes {argument.name!r}, which no operation before yields")
    assert isinstance(argument, Value)
    return argument


def _is_tuple(operation: Operation, name: str) -> bool:
    return name in _TUPLES and operation.type in _TUPLED_OPERATIONS


def _only(operation: Operation, name: str, given: Sequence[Any]) -> Any:
    if len(given) != 1:
        raise FormatError(f"{operation.where}: {name} must be one value, not {len(given)}")
    return given[0]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _conversion(value: Value, rounded: bool) -> Callable[[Any], Any]:
    kind = value.type
    if not isinstance(kind, TensorType):
        return _unchanged
    dtype = carrier_of(kind.data_type)
    if dtype is None:
        return _unchanged
    if rounded and kind.data_type.name == "float16":
        return rounded_to_float16

    def convert(result: Tensor) -> Tensor:
        return result if result.dtype is dtype else result.to(dtype)

    def convert_unless_label(result: Any) -> Any:
        return convert(result) if isinstance(result, Tensor) else result

    return convert_unless_label if kind.data_type.name == "int64" else convert


def _unchanged(result: Any) -> Any:
    return result


def _compose(
    call: Callable[..., Any],
    bound: list[Any],
    computed: dict[str, Getter],
    finish: list[Callable[[Any], Any]],
    outputs: tuple[int, ...],
) -> Callable[[Values], None]:
    """One function that computes an operation and stores its results."""
    if computed:
        plain_call = call

        def call_computed(values: Values, *arguments: Any) -> Any:
            return plain_call(*arguments, **{name: getter(values) for name, getter in computed.items()})

    slots_only = bound and all(isinstance(each, int) for each in bound)
    if len(outputs) == 1 and not computed and slots_only:
        return _simple(call, bound, finish[0], outputs[0])
    getters = [_getter_of(each) if isinstance(each, int) else each for each in bound]
    if len(outputs) == 1:
        (convert,), (output,) = finish, outputs

        def run_single(values: Values) -> None:
            arguments = [getter(values) for getter in getters]
            values[output] = convert(call_computed(values, *arguments) if computed else call(*arguments))

        return run_single

    def run_several(values: Values) -> None:
        arguments = [getter(values) for getter in getters]
        results = call_computed(values, *arguments) if computed else call(*arguments)
        if len(results) != len(outputs):
            raise ValueError(f"it has {len(results)} results, but the program names {len(outputs)}")
        for output, convert, result in zip(outputs, finish, results, strict=True):
            values[output] = convert(result)

    return run_several


def _getter_of(slot: int) -> Getter:
    return lambda values: values[slot]


def _simple(
    call: Callable[..., Any], slots: list[int], convert: Callable[[Any], Any], output: int
) -> Callable[[Values], None]:
    if len(slots) == 1:
        (slot,) = slots

        def run_unary(values: Values) -> None:
            values[output] = convert(call(values[slot]))

        return run_unary
    if len(slots) == 2:
        first, second = slots

        def run_binary(values: Values) -> None:
            values[output] = convert(call(values[first], values[second]))

        return run_binary

    def run(values: Values) -> None:
        values[output] = convert(call(*[values[slot] for slot in slots]))

    return run


def _bind_cond(
    function: BoundFunction, operation: Operation, blocks: list[Schedule], outputs: tuple[int, ...]
) -> Callable[[Values], None]:
    predicate = function.only_getter(operation, "pred")
    if len(blocks) != 2 or any(len(block.outputs) != len(outputs) for block in blocks):
        raise FormatError(f"{operation.where}: needs two blocks with as many outputs as it has")

    def run(values: Values) -> None:
        block = blocks[0] if bool(predicate(values)) else blocks[1]
        block.run(values)
        for output, slot in zip(outputs, block.outputs, strict=True):
            values[output] = _widened_value(values[slot])

    return run


def _bind_while_loop(
    function: BoundFunction, operation: Operation, blocks: list[Schedule], outputs: tuple[int, ...]
) -> Callable[[Values], None]:
    initial = function.getters(operation, "loop_vars")
    count = len(initial)
    if len(blocks) != 2 or [len(block.inputs) for block in blocks] != [count, count] or len(outputs) != count:
        raise FormatError(f"{operation.where}: needs two blocks that take its {count} variables")
    condition, body = blocks
    if len(condition.outputs) != 1 or len(body.outputs) != count:
        raise FormatError(f"{operation.where}: its blocks must yield a condition and its {count} variables")

    def run(values: Values) -> None:
        variables = [getter(values) for getter in initial]
        while True:
            _assign(values, condition.inputs, variables)
            condition.run(values)
            if not bool(values[condition.outputs[0]]):
                break
            _assign(values, body.inputs, variables)
            body.run(values)
            variables = [_widened_value(values[slot]) for slot in body.outputs]
            values[ITERATIONS] += 1
            if values[ITERATIONS] >= MOST_ITERATIONS:
                raise ValueError(f"has not ended after {MOST_ITERATIONS} iterations; it must be a loop without end")
        _assign(values, outputs, variables)

    return run


def _widened_value(value: Any) -> Any:
    return widened(value) if isinstance(value, Tensor) else value


def _assign(values: Values, slots: tuple[int, ...], given: list[Any]) -> None:
    for slot, value in zip(slots, given, strict=True):
        values[slot] = value


def _bind_read_state(
    function: BoundFunction, operation: Operation, blocks: list[Schedule], outputs: tuple[int, ...]
) -> Callable[[Values], None]:
    state = function.only_getter(operation, "input")
    (output,) = outputs

    def run(values: Values) -> None:
        values[output] = state(values).value

    return run


def _bind_write_state(
    function: BoundFunction, operation: Operation, blocks: list[Schedule], outputs: tuple[int, ...]
) -> Callable[[Values], None]:
    state, data = (function.only_getter(operation, name) for name in ("input", "data"))

    def run(values: Values) -> None:
        state(values).value = data(values)

    return run


# Operations that the schedule itself runs, and those whose results are read when a model is loaded.
CONSTANTS = tuple(OPERATIONS)
STRUCTURES: dict[str, Callable[..., Callable[[Values], None]]] = {
    "cond": _bind_cond,
    "while_loop": _bind_while_loop,
    "read_state": _bind_read_state,
    "write_state": _bind_write_state,
}
