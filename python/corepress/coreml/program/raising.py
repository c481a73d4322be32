"""Raising ML programs from iOS 15 to iOS 16, the first system with compressed weights.

Every operation of iOS 15 is one of iOS 16 too. A few have further inputs there, whose defaults are what iOS 15 does;
as coremltools does, these are written out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from ...errors import FormatError
from ..format.data_types import BY_NAME
from ..format.schema import Operation
from ..format.values import Tensor, inline_value, tensor_type
from ..operations import FIRST_VERSION, RAISABLE_VERSION
from .graph import label_of
from .program import Part, Program, pipeline_of

OPSET, RAISED_OPSET = f"CoreML{RAISABLE_VERSION - 1}", f"CoreML{FIRST_VERSION - 1}"

# Inputs that operations have from iOS 16 on, and their defaults: int32, bool, or of the type of the operation's output.
# `half_pixel_centers` of upsample_bilinear is new as well, but has no default: it follows `align_corners`.
ADDED_INPUTS: dict[str, dict[str, int | bool | float]] = {
    "crop_resize": {"pad_value": 0.0},
    "gather": {"batch_dims": 0},
    "gather_nd": {"batch_dims": 0},
    "topk": {"sort": True, "return_indices": True},
}


def obstacle(part: Part) -> str | None:
    """Why a model cannot have compressed weights even though its version could be raised; None if it can."""
    if part.version >= FIRST_VERSION:
        return None
    functions = part.model.mlProgram.functions.values()
    others = {opset for function in functions for opset in function.block_specializations} - {OPSET}
    if not others:
        return None
    return (
        f"compressed weights need specification version {FIRST_VERSION} (iOS 16), to which only programs of the opset "
        f"{OPSET} alone can be raised, but this one has {', '.join(sorted(others))}; convert again with "
        "minimum_deployment_target=ct.target.iOS16"
    )


def raised_prefixes(program: Program, result: Program) -> set[str]:
    """Prefixes of those models of a program that another program has in raised form."""
    versions = {part.prefix: part.version for part in result.parts}
    return {
        part.prefix
        for part in program.parts
        if part.version == RAISABLE_VERSION and versions.get(part.prefix) == FIRST_VERSION and obstacle(part) is None
    }


def raise_parts(program: Program, prefixes: Collection[str]) -> int | None:
    """Raise models of a program to iOS 16, with the pipelines that contain them.

    Blocks are copied: the program's definitions are outdated afterwards.

    Parameters
    ----------
    program : Program
        The program; its model is changed in place.
    prefixes : collection of str
        Prefixes of the models; those that are not older than iOS 16 are left unchanged.

    Returns
    -------
    int or None
        The version that models were raised from, None if there was none to raise.
    """
    parts = [part for part in program.parts if part.prefix in prefixes and part.version < FIRST_VERSION]
    for part in parts:
        for name, function in part.model.mlProgram.functions.items():
            change = partial(added_constants, names=NewNames(program.names[f"{part.prefix}{name}"]))
            raise_function(function, OPSET, RAISED_OPSET, change)
    raise_versions(program.model, "", {part.prefix for part in parts}, FIRST_VERSION)
    return min((part.version for part in parts), default=None)


def raise_versions(model: Any, prefix: str, raised: Collection[str], version: int) -> bool:
    """Raise a model to the version of the models inside it; return whether it or one of them is raised."""
    inner = [raise_versions(part, name, raised, version) for name, part in pipeline_of(model, prefix)]
    found = prefix in raised or any(inner)
    if found:
        model.specificationVersion = max(model.specificationVersion, version)
    return found


class NewNames:
    """Names that no value of a function has; the first of each kind is the one that coremltools gives."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._numbers: dict[str, int] = defaultdict(int)

    def make(self, base: str) -> str:
        """A new name that starts with `base`; it counts as taken afterwards."""
        while (name := f"{base}_{self._numbers[base]}") in self._taken:
            self._numbers[base] += 1
        self._taken.add(name)
        return name


Change = Callable[[Any], Iterable[Any]]  # given an operation, perhaps changes it; yields operations to put before it


def raise_function(function: Any, opset: str, raised_opset: str, change: Change) -> None:
    """Make the operations that a function has for one opset those of another one."""
    block = function.block_specializations[raised_opset]
    block.CopyFrom(function.block_specializations[opset])
    del function.block_specializations[opset]
    function.opset = raised_opset
    _raise_block(block, change)


def _raise_block(block: Any, change: Change) -> None:
    raised: list[Any] = []
    for operation in block.operations:
        for nested in operation.blocks:
            _raise_block(nested, change)
        raised += change(operation)
        raised.append(operation)
    if len(raised) > len(block.operations):  # at once, since to insert each would move all that follow
        del block.operations[:]
        block.operations.extend(raised)


def added_constants(
    operation: Any, names: NewNames, added: Mapping[str, Mapping[str, int | bool | float | str]] = ADDED_INPUTS
) -> Iterator[Any]:
    """Constants for the inputs that an operation gains; they are bound to it."""
    for name, default in added.get(operation.type, {}).items():
        if name in operation.inputs:
            continue
        constant = constant_operation(names.make(f"{label_of(operation)}_{name}"), _value_of(operation, default))
        if "name" not in operation.attributes:
            del constant.attributes["name"]
        operation.inputs[name].arguments.add().name = constant.outputs[0].name
        yield constant


def constant_operation(name: str, value: Any) -> Any:
    """An operation that yields a constant, given as a ``Value`` message."""
    constant = Operation(type="const")
    constant.outputs.add(name=name).type.CopyFrom(value.type)
    constant.attributes["val"].CopyFrom(value)
    constant.attributes["name"].CopyFrom(text_value(name))
    return constant


def text_value(text: str) -> Any:
    """A ``Value`` of one string."""
    return inline_value(Tensor(BY_NAME["string"], (), np.asarray(text)))


def _value_of(operation: Any, default: int | bool | float | str) -> Any:
    if isinstance(default, str):
        return text_value(default)
    return inline_value(Tensor.of(np.asarray(default, _dtype(operation, default))))


def _dtype(operation: Any, default: int | bool | float) -> np.dtype[Any] | type[np.generic]:
    if isinstance(default, bool):
        return np.bool_
    if isinstance(default, int):
        return np.int32
    where = f"{operation.type} {label_of(operation)}"
    declared = tensor_type(operation.outputs[0].type, where) if operation.outputs else None
    if declared is None or declared[0].name not in ("float16", "float32"):
        raise FormatError(f"{where}: its output must be a float16 or float32 tensor")
    assert declared[0].dtype is not None
    return declared[0].dtype
