"""Builds an ML program operation by operation, and writes it as a package."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coreml.format.data_types import BY_NAME, DataType
from ..coreml.format.messages import message_classes
from ..coreml.format.schema import Model, serialize_model
from ..coreml.format.values import Tensor, blob_value, inline_value, type_message
from ..coreml.format.weight_file import WeightFileWriter
from ..sources import MANIFEST
from .shapes import SHAPES

FOLDER, MODEL, WEIGHTS = "com.apple.CoreML", "model.mlmodel", "weights"
WEIGHT_FILE = f"{WEIGHTS}/weight.bin"
ARRAY_TYPES = {"float16": 65552, "float32": 65568, "int32": 131104}  # as descriptions number them

# What compression lets pass unseen.
_Described = message_classes(
    {
        "Model": "Description description = 2",
        "Description": """
            repeated Feature input = 1
            repeated Feature output = 10
            Metadata metadata = 100""",
        "Feature": """
            string name = 1
            FeatureType type = 3""",
        "FeatureType": "Type/ ArrayType multiArrayType = 5",
        "ArrayType": """
            repeated int64 shape = 1
            int32 dataType = 2""",
        "Metadata": "string shortDescription = 1",
    },
    "corepress.demo",
)["Model"]


@dataclass(frozen=True)
class Variable:
    """A value of a program: an input, a constant, or the result of an operation."""

    name: str
    data_type: DataType
    shape: tuple[int, ...]


class ProgramBuilder:
    """A program with one function, which becomes a package when its ``with`` block ends without an error.

    Parameters
    ----------
    destination : pathlib.Path
        The package, which must not exist.
    specification_version : int
        8 is iOS 17, 9 is iOS 18.
    description : str
        A short description of the model, for its user.
    """

    def __init__(self, destination: Path, specification_version: int, description: str) -> None:
        self._folder = destination / "Data" / FOLDER
        self._manifest = destination / MANIFEST
        self._names: Counter[str] = Counter()
        self._model = Model(specificationVersion=specification_version)
        self._described = _Described()
        self._described.description.metadata.shortDescription = description
        self._model.mlProgram.version = 1
        self._function = self._model.mlProgram.functions["main"]
        self._function.opset = f"CoreML{specification_version - 1}"
        self._block = self._function.block_specializations[self._function.opset]

    def __enter__(self) -> ProgramBuilder:
        path = self._folder / WEIGHT_FILE
        path.parent.mkdir(parents=True)
        self._weights = WeightFileWriter(path)
        self._weights.__enter__()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._weights.__exit__(error_type, error, traceback)
        if error_type is None:
            self._model.MergeFromString(self._described.SerializeToString())
            (self._folder / MODEL).write_bytes(serialize_model(self._model))
            self._manifest.write_text(_manifest(), encoding="utf-8")

    def input(self, name: str, shape: tuple[int, ...], dtype: str = "float16") -> Variable:
        """Add an input of the model."""
        variable = Variable(name, BY_NAME[dtype], shape)
        self._function.inputs.add(name=name).type.CopyFrom(type_message(variable.data_type, shape))
        _describe(self._described.description.input, variable)
        return variable

    def output(self, variable: Variable) -> None:
        """Make a value an output of the model."""
        self._block.outputs.append(variable.name)
        _describe(self._described.description.output, variable)

    def const(self, name: str, values: NDArray[Any]) -> Variable:
        """Add a constant; larger arrays are stored in the weight file."""
        tensor = _tensor(values)
        if tensor.is_blob:
            offset = self._weights.append(tensor.data_type, tensor.count, tensor.data)
            value = blob_value(tensor, f"@model_path/{WEIGHT_FILE}", offset)
        else:
            value = inline_value(tensor)
        variable = Variable(name, tensor.data_type, tensor.shape)
        self._add("const", name, [variable]).attributes["val"].CopyFrom(value)
        return variable

    def __call__(self, kind: str, *, name: str | None = None, dtype: str | None = None, **operands: Any) -> Variable:
        """Add an operation of one result.

        Parameters
        ----------
        kind : str
            Its type, one of `SHAPES`.
        name : str, optional
            Name of its result; by default a number after the type.
        dtype : str, optional
            Data type of its result; by default that of its first operand.
        **operands
            Variables or lists of them, and values, of which constants are made.
        """
        shapes = {key: _shaped(operand) for key, operand in operands.items()}
        data_type = BY_NAME[dtype] if dtype else _first_variable(operands).data_type
        result = Variable(name or self._numbered(kind), data_type, SHAPES[kind](**shapes))
        self._operation(kind, result.name, operands, [result])
        return result

    def split(self, x: Variable, parts: int) -> list[Variable]:
        """Add an operation that cuts the last axis into parts of one size."""
        name, shape = self._numbered("split"), (*x.shape[:-1], x.shape[-1] // parts)
        results = [Variable(f"{name}_{index}", x.data_type, shape) for index in range(parts)]
        self._operation("split", name, {"x": x, "num_splits": parts, "axis": -1}, results)
        return results

    def _numbered(self, kind: str) -> str:
        self._names[kind] += 1
        return f"{kind}_{self._names[kind] - 1}"

    def _operation(self, kind: str, name: str, operands: dict[str, Any], results: list[Variable]) -> None:
        bound = {key: self._variables(f"{name}_{key}_0", operand) for key, operand in operands.items()}
        operation = self._add(kind, name, results)
        for key, variables in bound.items():
            for variable in variables:
                operation.inputs[key].arguments.add(name=variable.name)

    def _variables(self, name: str, operand: Any) -> list[Variable]:
        if isinstance(operand, Variable):
            return [operand]
        if isinstance(operand, Sequence) and isinstance(operand[0], Variable):
            return list(operand)
        return [self.const(name, np.array(operand))]

    def _add(self, kind: str, name: str, results: list[Variable]) -> Any:
        operation = self._block.operations.add(type=kind)
        operation.attributes["name"].CopyFrom(inline_value(_tensor(np.array(name))))
        for result in results:
            operation.outputs.add(name=result.name).type.CopyFrom(type_message(result.data_type, result.shape))
        return operation


def _tensor(values: NDArray[Any]) -> Tensor:
    if values.dtype.kind == "U":
        return Tensor(BY_NAME["string"], values.shape, values)
    return Tensor.of(values.astype(np.int32) if values.dtype == np.int64 else values)


def _shaped(operand: Any) -> Any:
    """An operand as the functions of `SHAPES` take it: shapes in place of variables."""
    if isinstance(operand, Variable):
        return operand.shape
    if isinstance(operand, Sequence) and isinstance(operand[0], Variable):
        return [each.shape for each in operand]
    return operand


def _first_variable(operands: dict[str, Any]) -> Variable:
    first = next(iter(operands.values()))
    return first if isinstance(first, Variable) else first[0]


def _describe(features: Any, variable: Variable) -> None:
    kind = features.add(name=variable.name).type.multiArrayType
    kind.shape.extend(variable.shape)
    kind.dataType = ARRAY_TYPES[variable.data_type.name]


def _manifest() -> str:
    """The list of a package's parts, whose identifiers are always the same."""
    parts = {name: str(uuid.uuid5(uuid.NAMESPACE_URL, f"corepress/{name}")) for name in (MODEL, WEIGHTS)}
    entries = {
        identifier: {"author": FOLDER, "description": "", "name": name, "path": f"{FOLDER}/{name}"}
        for name, identifier in parts.items()
    }
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": entries, "rootModelIdentifier": parts[MODEL]}
    return json.dumps(manifest, indent=4) + "\n"
