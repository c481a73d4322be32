"""Raising ML programs to iOS 17, the first system whose operations quantize what they compute.

Further inputs get the defaults that are what iOS 16 does. Two operations are others in iOS 17; programs with these are
refused. `gather` no longer counts negative indices from the end: as in coremltools, operations before it do that where
the indices are computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ..format.data_types import BY_NAME
from ..format.schema import Operation as OperationMessage
from ..format.values import Tensor, inline_value, type_message
from ..format.versions import IOS17
from .graph import Literal, Operation, TensorType, Value, function_graphs, label_of
from .program import Part, Program
from .raising import (
    NewNames,
    added_constants,
    constant_operation,
    raise_function,
    raise_versions,
    text_value,
)

RAISED_OPSET = f"CoreML{IOS17 - 1}"
RAISABLE_OPSETS = ("CoreML5", "CoreML6")

# Inputs that operations have from iOS 17 on, and the defaults that are what iOS 16 does.
ADDED_INPUTS_IOS17: dict[str, dict[str, int | bool | float | str]] = {
    "gather": {"validate_indices": False},
    "gather_along_axis": {"validate_indices": False},
    "gather_nd": {"validate_indices": False},
    "reduce_argmax": {"output_dtype": "int32"},
    "reduce_argmin": {"output_dtype": "int32"},
    "scatter": {"validate_indices": False},
    "scatter_along_axis": {"validate_indices": False},
    "scatter_nd": {"validate_indices": False},
    "topk": {"output_indices_dtype": "int32"},
}
# Other inputs, or other results.
CHANGED = ("crop_resize", "non_maximum_suppression")
_WITH_INDICES = ("gather", "gather_along_axis", "gather_nd", "scatter", "scatter_along_axis", "scatter_nd")
_NONNEGATIVE = ("reduce_argmax", "reduce_argmin", "topk", "non_zero", "range_1d", "argsort")  # results that index


def obstacle(part: Part) -> str | None:
    """Why a model cannot be raised to iOS 17; None if it can, or need not be."""
    if part.version >= IOS17:
        return None
    functions = part.model.mlProgram.functions
    others = {opset for function in functions.values() for opset in function.block_specializations}
    others -= set(RAISABLE_OPSETS)
    advice = "convert again with minimum_deployment_target=ct.target.iOS17"
    if others or any(len(function.block_specializations) != 1 for function in functions.values()):
        found = sorted({opset for function in functions.values() for opset in function.block_specializations})
        return (
            f"quantized activations need specification version {IOS17} (iOS 17), to which only programs of one opset "
            f"({' or '.join(RAISABLE_OPSETS)}) can be raised, but this one has {', '.join(found)}; {advice}"
        )
    for function in function_graphs(part.model, part.prefix):
        for operation in function.operations():
            reason = _obstacle_of(operation)
            if reason is not None:
                return (
                    f"quantized activations need specification version {IOS17} (iOS 17), but {operation.where} "
                    f"{reason}; {advice}"
                )
    return None


def _obstacle_of(operation: Operation) -> str | None:
    if operation.type in CHANGED:
        return "is another operation there"
    if operation.type == "clip":
        low, high = (_constant(operation, name) for name in ("alpha", "beta"))
        if low is not None and high is not None and not float(low.reshape(-1)[0]) < float(high.reshape(-1)[0]):
            return "has bounds that are refused there (alpha must be less than beta)"
    if operation.type in _WITH_INDICES and _may_be_negative(operation):
        if operation.type == "gather" and _axis_size(operation) is not None:
            return None
        return "may get negative indices, which do not count from the end there"
    return None


def _constant(operation: Operation, name: str) -> np.ndarray[Any, Any] | None:
    """The values of an argument that the program has inline; None for others."""
    arguments = operation.inputs.get(name, ())
    if len(arguments) != 1:
        return None
    argument = arguments[0]
    message = None
    if isinstance(argument, Literal):
        message = argument.message
    elif isinstance(argument, Value) and argument.producer is not None and argument.producer.type == "const":
        message = argument.producer.attributes["val"]
    if message is None or message.WhichOneof("value") != "immediateValue":
        return None
    tensor = message.immediateValue.tensor
    field = tensor.WhichOneof("value")
    if field is None:
        return None
    values = getattr(tensor, field).values
    if not isinstance(values, bytes):
        return np.array(list(values))
    kinds = {number.program_number: number.dtype for number in BY_NAME.values() if number.dtype is not None}
    return np.frombuffer(values, kinds[message.type.tensorType.dataType])


def _may_be_negative(operation: Operation) -> bool:
    argument = operation.inputs.get("indices", (None,))[0]
    if isinstance(argument, Value):
        if isinstance(argument.type, TensorType) and argument.type.data_type.name.startswith("u"):
            return False
        if argument.producer is not None and argument.producer.type in _NONNEGATIVE:
            return False
    values = _constant(operation, "indices")
    return values is None or bool((values < 0).any())


def _axis_size(operation: Operation) -> int | None:
    """The size of the axis that a gather picks from, if it is known; its indices must be int32."""
    x, indices = (operation.inputs.get(name, (None,))[0] for name in ("x", "indices"))
    axis = _constant(operation, "axis") if "axis" in operation.inputs else np.zeros(1, np.int32)
    if not (isinstance(x, Value) and isinstance(x.type, TensorType) and x.type.shape and axis is not None):
        return None
    if not (isinstance(indices, Value) and isinstance(indices.type, TensorType)):
        return None
    if indices.type.data_type.name != "int32" or indices.type.shape is None:
        return None
    number = int(axis.reshape(-1)[0])
    return x.type.shape[number] if -len(x.type.shape) <= number < len(x.type.shape) else None


def raised_prefixes(program: Program, result: Program) -> set[str]:
    """Prefixes of those models of a program that another program has raised to iOS 17."""
    versions = {part.prefix: part.version for part in result.parts}
    return {
        part.prefix
        for part in program.parts
        if part.version < IOS17 and versions.get(part.prefix) == IOS17 and obstacle(part) is None
    }


def raise_parts(program: Program, prefixes: Collection[str]) -> int | None:
    """Raise models of a program to iOS 17; as `corepress.coreml.program.raising.raise_parts`.

    Raises
    ------
    ValueError
        If a model cannot be raised.
    """
    parts = [part for part in program.parts if part.prefix in prefixes and part.version < IOS17]
    for part in parts:
        if (reason := obstacle(part)) is not None:
            raise ValueError(reason)
        sizes = {
            _output_name(operation.message): (_axis_size(operation), operation.inputs["indices"][0])
            for function in program.graphs[part.prefix]
            for operation in function.operations()
            if operation.type == "gather" and _may_be_negative(operation)
        }
        for name, function in part.model.mlProgram.functions.items():
            names = NewNames(program.names[f"{part.prefix}{name}"])
            (opset,) = function.block_specializations
            change = partial(_changes, names=names, gathers=sizes, first=opset == RAISABLE_OPSETS[0])
            raise_function(function, opset, RAISED_OPSET, change)
    raise_versions(program.model, "", {part.prefix for part in parts}, IOS17)
    return min((part.version for part in parts), default=None)


def _output_name(message: Any) -> str:
    return str(message.outputs[0].name) if message.outputs else ""


def _changes(operation: Any, names: NewNames, gathers: Mapping[str, Any], first: bool) -> Iterator[Any]:
    if first:
        yield from added_constants(operation, names)
    yield from added_constants(operation, names, ADDED_INPUTS_IOS17)
    if operation.type == "gather" and _output_name(operation) in gathers:
        yield from _counted_from_the_end(operation, names, *gathers[_output_name(operation)])


def _counted_from_the_end(operation: Any, names: NewNames, size: int, indices: Value) -> Iterator[Any]:
    """Operations that add an axis' size to negative indices; the gather takes their result."""
    kind = indices.type
    assert isinstance(kind, TensorType)
    label = label_of(operation)
    given = operation.inputs["indices"].arguments[0].name
    zero, whole = (
        constant_operation(names.make(f"{label}_{what}"), inline_value(Tensor.of(np.asarray(value, np.int32))))
        for what, value in (("zero", 0), ("size", size))
    )
    yield zero
    yield whole

    def made(operation_type: str, what: str, result: str, **inputs: str) -> Any:
        message = OperationMessage(type=operation_type)
        name = names.make(f"{label}_{what}")
        output = message.outputs.add(name=name)
        output.type.CopyFrom(_typed_like(kind, result))
        for parameter, value in inputs.items():
            message.inputs[parameter].arguments.add().name = value
        message.attributes["name"].CopyFrom(text_value(name))
        return message

    holds = made("greater_equal", "nonnegative", "bool", x=given, y=zero.outputs[0].name)
    shifted = made("add", "from_end", "int32", x=given, y=whole.outputs[0].name)
    chosen = made(
        "select",
        "indices",
        "int32",
        cond=holds.outputs[0].name,
        a=given,
        b=shifted.outputs[0].name,
    )
    yield from (holds, shifted, chosen)
    operation.inputs["indices"].arguments[0].name = chosen.outputs[0].name


def _typed_like(kind: TensorType, name: str) -> Any:
    shape = kind.shape or ()
    message = type_message(BY_NAME[name], tuple(size or 1 for size in shape))
    for size, dimension in zip(shape, message.tensorType.dimensions, strict=True):
        if size is None:
            dimension.unknown.SetInParent()
    return message
