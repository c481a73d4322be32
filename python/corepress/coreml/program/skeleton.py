"""Comparison of two models without their constants: what compression must leave unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import FormatError
from ..format.messages import parse_message
from ..format.schema import DescribedModel, Model
from ..format.values import nested_values, tensor_type
from .graph import is_definition, label_of, nested_path
from .program import programs_of


def differences(first: Any, second: Any) -> Iterator[str]:
    """Descriptions of the differences between two models, except ``const`` and ``constexpr_...`` operations.

    Positions of blobs in weight files do not count.
    """
    if _rest(first) != _rest(second):
        yield "the model: its description, metadata or another field outside of the programs"
    programs, others = dict(programs_of(first)), dict(programs_of(second))
    if list(programs) != list(others):
        yield f"the programs of the pipeline: {list(programs)} became {list(others)}"
    for prefix in programs.keys() & others.keys():
        yield from _of_functions(prefix, programs[prefix].mlProgram, others[prefix].mlProgram)


def _rest(model: Any) -> bytes:
    """A model without its functions."""
    copy = Model()
    copy.CopyFrom(model)
    for _, part in programs_of(copy):
        part.mlProgram.functions.clear()
        for value in part.mlProgram.attributes.values():
            _forget_positions(value)
    data = bytes(copy.SerializeToString(deterministic=True))
    try:
        return bytes(parse_message(data, DescribedModel).SerializeToString(deterministic=True))
    except FormatError:  # a description that is none
        return data


def _forget_positions(value: Any) -> None:
    for each in nested_values(value):
        if each.WhichOneof("value") == "blobFileValue":
            each.blobFileValue.offset = 0


def _of_functions(prefix: str, first: Any, second: Any) -> Iterator[str]:
    for name in sorted(set(first.functions) | set(second.functions)):
        path = f"{prefix}{name}"
        if (name in first.functions) != (name in second.functions):
            yield f"function {path} {'is missing' if name in first.functions else 'was added'}"
            continue
        function, other = first.functions[name], second.functions[name]
        if _without(function, "block_specializations") != _without(other, "block_specializations"):
            yield f"function {path}: its inputs, opset or attributes"
        if set(function.block_specializations) != set(other.block_specializations):
            yield f"function {path}: its block specializations"
        for opset in sorted(set(function.block_specializations) & set(other.block_specializations)):
            blocks = function.block_specializations[opset], other.block_specializations[opset]
            yield from _of_blocks(f"{path}/{opset}", *blocks)


def _without(message: Any, field: str) -> bytes:
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField(field)
    for value in _values(copy):
        _forget_positions(value)
    return bytes(copy.SerializeToString(deterministic=True))


def _values(message: Any) -> Iterator[Any]:
    yield from message.attributes.values()
    if message.DESCRIPTOR.name == "Operation":
        for argument in message.inputs.values():
            yield from (each.value for each in argument.arguments if each.WhichOneof("binding") == "value")


def _of_blocks(path: str, first: Any, second: Any) -> Iterator[str]:
    if _without(first, "operations") != _without(second, "operations"):
        yield f"block {path}: its inputs, outputs or attributes"
    operations, others = _operations(first), _operations(second)
    for operation, other in zip(operations, others, strict=False):
        if _without(operation, "blocks") != _without(other, "blocks") or len(operation.blocks) != len(other.blocks):
            yield f"block {path}: operation {operation.type} {label_of(operation)}"
            break  # what follows is likely to be shifted
        for index, blocks in enumerate(zip(operation.blocks, other.blocks, strict=True)):
            yield from _of_blocks(nested_path(path, operation, index), *blocks)
    if len(operations) != len(others):
        yield f"block {path}: {len(operations)} operations other than constants became {len(others)}"


def _operations(block: Any) -> list[Any]:
    """All operations except constants that a `Definition` represents."""
    return [each for each in block.operations if not (is_definition(each) and _has_fixed_type(each))]


def _has_fixed_type(operation: Any) -> bool:
    return bool(operation.outputs) and tensor_type(operation.outputs[0].type, operation.type) is not None
