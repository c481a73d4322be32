"""Constants of a program as tensors in their stored type, and as plain Python values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...coreml.decoded import stored_form
from ...coreml.format.package import Package
from ...coreml.format.values import MINIMUM_BLOB_COUNT, ValueReader
from ...coreml.program.graph import Argument, Literal, Operation, TensorType, Value, is_definition
from ...coreml.program.program import Definition, Program
from ...engine.distances import Undecodable
from ...errors import FormatError
from ...tensors import CompressedTensor
from .constexpr import CAST, elements, evaluate
from .dtypes import tensor_of


class Constants:
    """Reads the constants of a program; data that several constants share is read once.

    Parameters
    ----------
    package : Package
        The package.
    program : Program
        Its program.
    """

    def __init__(self, package: Package, program: Program) -> None:
        self._values = ValueReader(package)
        self._definitions = {(each.place, each.output_name): each for each in reversed(program.definitions)}
        self._tensors: dict[tuple[Definition, int], Tensor] = {}

    def close(self) -> None:
        """Close the weight files."""
        self._values.close()

    def is_constant(self, argument: Argument) -> bool:
        """Whether an argument is known before a run."""
        if not isinstance(argument, Value):
            return isinstance(argument, Literal)
        return argument.producer is not None and is_definition(argument.producer.message)

    def is_weight(self, value: Value) -> bool:
        """Whether a constant is what training would change: floating-point numbers, and not just a few."""
        kind = value.type
        if not isinstance(kind, TensorType) or kind.shape is None or not kind.data_type.name.startswith("float"):
            return False
        return bool(kind.shape) and int(np.prod([size or 0 for size in kind.shape])) >= MINIMUM_BLOB_COUNT

    def weight(self, value: Value) -> Tensor:
        """A constant in its stored type; the same tensor for all constants that share its data."""
        definition, output = self._definition(value)
        original = definition.original
        if (original, output) not in self._tensors:
            self._tensors[original, output] = torch.from_numpy(self._array(original, output))
        return self._tensors[original, output]

    def tensor(self, argument: Argument) -> Any:
        """A constant as the tensor that carries it in a run; text and lists as Python values."""
        message, is_tensor = self._message(argument)
        if message is not None and not is_tensor:
            return plain(message)
        if message is not None:
            tensor = self._values.read(message, _name(argument))
            if tensor.data_type.name == "string":
                return plain(message)
            return tensor_of(*elements(tensor, _name(argument)))
        assert isinstance(argument, Value)
        assert isinstance(argument.type, TensorType)
        return tensor_of(self._array(*self._definition(argument)), argument.type.data_type)

    def option(self, argument: Argument) -> Any:
        """A constant as a plain Python value: a number or text, or nested lists of these."""
        tensor = self.tensor(argument)
        return tensor.tolist() if isinstance(tensor, Tensor) else tensor

    def _message(self, argument: Argument) -> tuple[Any, bool]:
        """The program's ``Value`` of a constant that is not compressed, and whether it is a tensor."""
        if isinstance(argument, Literal):
            message = argument.message
        elif isinstance(argument, Value) and argument.producer is not None and argument.producer.type == "const":
            message = argument.producer.attributes["val"]
        else:
            return None, False
        return message, message.type.WhichOneof("type") == "tensorType"

    def _definition(self, value: Value) -> tuple[Definition, int]:
        """The operation that yields a constant, and which of its outputs it is."""
        producer = value.producer
        assert producer is not None
        return self._definitions[producer.place, producer.outputs[0].name], producer.outputs.index(value)

    def _array(self, definition: Definition, output: int) -> NDArray[Any]:
        """A constant as an array that nothing else refers to."""
        found = self._decompressed(definition)
        if found is None:
            found = np.ascontiguousarray(evaluate(definition, self._values)[output].array)
        return found if found.flags.writeable else found.copy()

    def _decompressed(self, definition: Definition) -> NDArray[Any] | None:
        """A plain constant, or what decompresses as one tensor; None for other forms, and for what is damaged."""
        kind = definition.operation.type
        if kind == "const" and definition.data_type.dtype is not None:
            return self._values.read(definition.parameters["val"], definition.where, allocate=_allocate).data
        if kind == CAST or len(definition.operation.outputs) > 1:
            return None
        try:
            found = stored_form(definition, self._values)
        except (Undecodable, FormatError):
            return None
        return found.dense() if isinstance(found, CompressedTensor) else found


def _allocate(size: int) -> NDArray[np.uint8]:
    """Memory as PyTorch allocates it. NumPy asks for large pages, and to make these may take longer than to read."""
    array: NDArray[np.uint8] = torch.empty(size, dtype=torch.uint8).numpy()
    return array


def plain(message: Any) -> Any:
    """A ``Value`` message that holds its data itself, as Python values."""
    immediate = message.immediateValue
    kind = immediate.WhichOneof("value")
    if kind in ("tuple", "list"):
        return [plain(each) for each in getattr(immediate, kind).values]
    if kind == "dictionary":
        return {plain(pair.key): plain(pair.value) for pair in immediate.dictionary.values}
    field = immediate.tensor.WhichOneof("value")
    values = [] if field is None else list(getattr(immediate.tensor, field).values)
    return values[0] if not message.type.tensorType.rank and len(values) == 1 else values


def _name(argument: Argument) -> str:
    return argument.name if isinstance(argument, Value) else "an argument"


def describe_operation(operation: Operation, version: int) -> str:
    """An operation, its version and its place, for messages about what is not supported."""
    return f"operation {operation.type} of opset CoreML{version - 1} ({operation.where})"
