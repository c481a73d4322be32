"""An ML program as a graph: every operation, block and value, with names resolved in their scopes."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ...errors import FormatError
from ..format.data_types import BY_PROGRAM_NUMBER, DataType
from .program import label_of, nested_path, opset_version


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


Argument: TypeAlias = Value | Literal


@dataclass(eq=False)
class Operation:
    """One operation.

    Attributes
    ----------
    type, name : str
        Type, and the name that coremltools gives it.
    inputs : dict of str to tuple of Value or Literal
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
    """A list of operations, with its inputs and the values that it yields."""

    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Value, ...]


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
    """

    name: str
    version: int
    block: Block

    def operations(self) -> Iterator[Operation]:
        """All operations, nested ones after the operation that contains them."""
        yield from _operations(self.block)


def _operations(block: Block) -> Iterator[Operation]:
    for operation in block.operations:
        yield operation
        for nested in operation.blocks:
            yield from _operations(nested)


def function_graph(model: Any, name: str, prefix: str = "") -> Function:
    """The graph of one function of an ML program.

    Parameters
    ----------
    model : message
        The model with the program.
    name : str
        Name of the function.
    prefix : str
        Starts the names of places, in a pipeline.

    Raises
    ------
    FormatError
        If the function refers to values that it does not have, or is damaged otherwise.
    """
    function = model.mlProgram.functions[name]
    if function.opset not in function.block_specializations:
        raise FormatError(f"function {name} has no block for opset {function.opset!r}")
    version = opset_version(function.opset, int(model.specificationVersion))
    message = function.block_specializations[function.opset]
    scope: _Scope = ChainMap()
    inputs = tuple(Value(each.name, value_type(each.type, f"{name}: {each.name}")) for each in function.inputs)
    scope.update({value.name: value for value in inputs})
    return Function(name, version, _block(message, scope, f"{prefix}{name}/{function.opset}", inputs))


_Scope: TypeAlias = "ChainMap[str, Value]"


def _block(message: Any, scope: _Scope, place: str, inputs: tuple[Value, ...] = ()) -> Block:
    own = tuple(Value(each.name, value_type(each.type, f"{place}: {each.name}")) for each in message.inputs)
    scope.update({value.name: value for value in own})
    operations = tuple(_operation(each, scope, place) for each in message.operations)
    outputs = tuple(_resolved(name, scope, f"{place}: output") for name in message.outputs)
    return Block(inputs + own, operations, outputs)


def _operation(message: Any, scope: _Scope, place: str) -> Operation:
    name = label_of(message)
    operation = Operation(message.type, name, {}, message, place)
    for parameter, argument in message.inputs.items():
        operation.inputs[parameter] = tuple(
            Literal(binding.value)
            if binding.WhichOneof("binding") == "value"
            else _resolved(binding.name, scope, operation.where)
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


def _resolved(name: str, scope: _Scope, where: str) -> Value:
    if name not in scope:
        raise FormatError(f"{where}: takes {name!r}, which no operation before it yields")
    return scope[name]


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
