"""Raising ML programs from iOS 15 to iOS 16, the first system with compressed weights.

Every operation of iOS 15 is one of iOS 16 too. A few have further inputs there, whose defaults are what iOS 15 does;
as coremltools does, these are written out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from ...errors import FormatError
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


def describe(raised_from: int) -> str:
    """A description of what was done to a program."""
    return (
        f"raised from specification version {raised_from} (iOS 15) to {FIRST_VERSION} (iOS 16), which compressed "
        "weights need"
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
            _raise_function(function, _NewNames(program.names[f"{part.prefix}{name}"]))
    _raise_versions(program.model, "", {part.prefix for part in parts})
    return min((part.version for part in parts), default=None)


def _raise_versions(model: Any, prefix: str, raised: Collection[str]) -> bool:
    """Raise a model to the version of the models inside it; return whether it or one of them is raised."""
    inner = [_raise_versions(part, name, raised) for name, part in pipeline_of(model, prefix)]
    found = prefix in raised or any(inner)
    if found:
        model.specificationVersion = max(model.specificationVersion, FIRST_VERSION)
    return found


class _NewNames:
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


def _raise_function(function: Any, names: _NewNames) -> None:
    block = function.block_specializations[RAISED_OPSET]
    block.CopyFrom(function.block_specializations[OPSET])
    del function.block_specializations[OPSET]
    function.opset = RAISED_OPSET
    _raise_block(block, names)


def _raise_block(block: Any, names: _NewNames) -> None:
    raised: list[Any] = []
    for operation in block.operations:
        for nested in operation.blocks:
            _raise_block(nested, names)
        raised += _added_constants(operation, names)
        raised.append(operation)
    if len(raised) > len(block.operations):  # at once, since to insert each would move all that follow
        del block.operations[:]
        block.operations.extend(raised)


def _added_constants(operation: Any, names: _NewNames) -> Iterator[Any]:
    """Constants for the inputs that an operation gains; they are bound to it."""
    for name, default in ADDED_INPUTS.get(operation.type, {}).items():
        if name in operation.inputs:
            continue
        value = inline_value(Tensor.of(np.asarray(default, _dtype(operation, default))))
        constant = Operation(type="const")
        output = names.make(f"{label_of(operation)}_{name}")
        constant.outputs.add(name=output).type.CopyFrom(value.type)
        constant.attributes["val"].CopyFrom(value)
        if "name" in operation.attributes:
            constant.attributes["name"].CopyFrom(operation.attributes["name"])
            constant.attributes["name"].immediateValue.tensor.strings.values[:] = [output]
        operation.inputs[name].arguments.add().name = output
        yield constant


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
