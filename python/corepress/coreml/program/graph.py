"""An ML program as a graph: every operation, block and value, with names resolved in their scopes."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...errors import FormatError
from ..format.data_types import BY_PROGRAM_NUMBER, DataType

_OPSET = re.compile(r"CoreML(\d{1,4})")


@dataclass(frozen=True)
class TensorType:
    """Type of a tensor; sizes that only a run decides are None, and so is the shape where the rank is not known."""

    data_type: DataType
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class ListType:
    """Type of a list of values of one type."""

    element: TensorType | None


@dataclass(frozen=True)
class StateType:
    """Type of a state."""

    wrapped: TensorType


ValueType: TypeAlias = TensorType | ListType | StateType | None  # None: dictionaries and tuples


@dataclass(frozen=True, eq=False)
class Value:
    """A result of an operation, or an input of a block.

    Attributes
    ----------
    name : str
        Name in the program.
    type : TensorType, ListType, StateType or None
        Declared type.
    producer : Operation or None
        The operation whose result it is; None for inputs.
    """

    name: str
    type: ValueType
    producer: Operation | None = None


@dataclass(frozen=True, eq=False)
class Literal:
    """An argument that the operation carries itself, as the program's ``Value`` message."""

    message: Any


@dataclass(frozen=True, eq=False)
class Unresolved:
    """An argument by a name that nothing in its scope has; such a program can be compressed, but not run."""

    name: str


Argument: TypeAlias = Value | Literal | Unresolved


@dataclass(eq=False)
class Operation:
    """One operation.

    Attributes
    ----------
    type, name : str
        Type, and the name that coremltools gives it.
    inputs : dict of str to tuple of Value, Literal or Unresolved
        Its arguments; more than one where it takes a tuple.
    outputs : tuple of Value
        Its results.
    blocks : tuple of Block
        The blocks of control flow.
    message : message
        The operation in the program, for its attributes and for editing.
    place : str
        Its block: function, opset and the operations that contain the block.
    """

    type: str
    name: str
    inputs: dict[str, tuple[Argument, ...]]
    message: Any
    place: str
    outputs: tuple[Value, ...] = ()
    blocks: tuple[Block, ...] = ()

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Its attributes as ``Value`` messages."""
        found: Mapping[str, Any] = self.message.attributes
        return found

    @property
    def where(self) -> str:
        """For error messages."""
        return f"{self.place}: {self.type} {self.name}"

    def values(self) -> Iterator[Value]:
        """The values that it takes, those that its blocks take from outside not included."""
        for arguments in self.inputs.values():
            yield from (argument for argument in arguments if isinstance(argument, Value))


@dataclass(frozen=True, eq=False)
class Block:
    """A list of operations, with its inputs, the values that it yields, and the block in the program."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value | Unresolved, ...]
    message: Any


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a program.

    Attributes
    ----------
    name : str
        Name in the program.
    version : int
        Specification version that defines its operations.
    block : Block
        Its operations; the inputs are those of the function.
    message : message
        The function in the program.
    is_default : bool
        Whether these operations are those of the opset that the function names as its own.
    """

    name: str
    version: int
    block: Block
    message: Any
    is_default: bool

    def operations(self) -> Iterator[Operation]:
        """All operations, nested ones after the operation that contains them."""
        yield from _operations(self.block)


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def function_graphs(model: Any, prefix: str = "") -> Iterator[Function]:
    """The functions of an ML program, by name; one for each opset that a function has operations for.

    Parameters
    ----------
    model : message
        The model with the program.
    prefix : str
        Starts the names of places, in a pipeline.

    Raises
    ------
    FormatError
        If a function has no operations for its own opset, or a data type is unknown.
    """
    for name, function in sorted(model.mlProgram.functions.items()):
        if function.opset not in function.block_specializations:
            raise FormatError(f"function {prefix}{name} has no block for opset {function.opset!r}")
        for opset, message in sorted(function.block_specializations.items()):
            version = opset_version(opset, int(model.specificationVersion))
            place = f"{prefix}{name}/{opset}"
            scope: _Scope = ChainMap()
            inputs = _declared(function.inputs, scope, place)
            block = _block(message, scope, place, inputs)
            yield Function(name, version, block, function, is_default=opset == function.opset)


_Scope: TypeAlias = "ChainMap[str, Value]"


def _block(message: Any, scope: _Scope, place: str, inputs: tuple[Value, ...] = ()) -> Block:
    own = _declared(message.inputs, scope, place)
    operations = tuple(_operation(each, scope, place) for each in message.operations)
    outputs = tuple(_resolved(name, scope) for name in message.outputs)
    return Block(inputs + own, operations, outputs, message)


def _declared(messages: Any, scope: _Scope, place: str) -> tuple[Value, ...]:
    """The inputs of a function or a block."""
    values = tuple(Value(each.name, value_type(each.type, f"{place}: {each.name}")) for each in messages)
    scope.update({value.name: value for value in values})
    return values


def _operation(message: Any, scope: _Scope, place: str) -> Operation:
    name = label_of(message)
    operation = Operation(message.type, name, {}, message, place)
    for parameter, argument in message.inputs.items():
        operation.inputs[parameter] = tuple(
            Literal(binding.value) if binding.WhichOneof("binding") == "value" else _resolved(binding.name, scope)
            for binding in argument.arguments
        )
    operation.blocks = tuple(
        _block(nested, scope.new_child(), nested_path(place, message, index))
        for index, nested in enumerate(message.blocks)
    )
    operation.outputs = tuple(
        Value(each.name, value_type(each.type, operation.where), operation) for each in message.outputs
    )
    for value in reversed(operation.outputs):
        scope[value.name] = value
    return operation


def _resolved(name: str, scope: _Scope) -> Value | Unresolved:
    return scope.get(name) or Unresolved(name)


def value_type(message: Any, where: str) -> ValueType:
    """The type that a ``ValueType`` message declares.

    Raises
    ------
    FormatError
        If its data type is unknown.
    """
    kind = message.WhichOneof("type")
    if kind == "tensorType":
        return _tensor_type(message.tensorType, where)
    if kind == "listType":
        element = value_type(message.listType.type, where)
        return ListType(element if isinstance(element, TensorType) else None)
    if kind == "stateType":
        wrapped = value_type(message.stateType.wrappedType, where)
        if not isinstance(wrapped, TensorType):
            raise FormatError(f"{where}: a state must be a tensor")
        return StateType(wrapped)
    return None


def _tensor_type(tensor: Any, where: str) -> TensorType:
    if tensor.dataType not in BY_PROGRAM_NUMBER:
        raise FormatError(f"{where}: unknown data type {tensor.dataType}")
    sizes = tuple(
        int(dimension.constant.size) if dimension.WhichOneof("dimension") == "constant" else None
        for dimension in tensor.dimensions
    )
    return TensorType(BY_PROGRAM_NUMBER[tensor.dataType], sizes if len(sizes) == max(tensor.rank, 0) else None)


def is_definition(operation: Any) -> bool:
    """Whether an operation yields a constant."""
    return bool(operation.type == "const" or operation.type.startswith("constexpr_"))


def nested_path(path: str, operation: Any, index: int) -> str:
    """The path of a block that an operation holds."""
    return f"{path}/{label_of(operation)}[{index}]"


def label_of(operation: Any) -> str:
    """The name that coremltools gives an operation: its label, or else the name of its first output."""
    if "name" in operation.attributes:
        values = operation.attributes["name"].immediateValue.tensor.strings.values
        if len(values) == 1:
            return str(values[0])
    return str(operation.outputs[0].name) if operation.outputs else ""


def opset_version(opset: str, default: int) -> int:
    """The specification version whose operations an opset has; `default` for other names than coremltools gives."""
    match = _OPSET.fullmatch(opset)
    return int(match.group(1)) + 1 if match else default
