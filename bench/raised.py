"""A package of iOS 16 or 17 as one of iOS 18, which has palettes of 3 bits."""

from __future__ import annotations

import shutil
from pathlib import Path

from corepress.coreml.format import schema
from corepress.coreml.format.package import Package
from corepress.coreml.format.versions import IOS17, IOS18
from corepress.coreml.program.program import Program
from corepress.coreml.program.raising import raise_function, raise_versions
from corepress.coreml.program.raising_ios17 import RAISED_OPSET, raise_parts

NEW_OPSET = f"CoreML{IOS18 - 1}"
CHANGED = ("gru", "constexpr_affine_dequantize", "constexpr_lut_to_dense", "constexpr_sparse_to_dense")


def version_of(path: Path) -> int:
    """The specification version of a package."""
    return Program(Package.open(path)).specification_version


def raise_to_ios18(source: Path, target: Path) -> Path:
    """Copy a package of one model, and raise the copy; its weights and what it computes stay the same.

    Raises
    ------
    ValueError
        If it has an operation that is another one there.
    """
    shutil.copytree(source, target, dirs_exist_ok=True)
    program = Program(Package.open(target))
    (part,) = program.parts
    raise_parts(program, {part.prefix})
    program = Program(program.package, program.model)
    for function in part.model.mlProgram.functions.values():
        (opset,) = function.block_specializations
        found = {each.type for each in function.block_specializations[opset].operations} & set(CHANGED)
        if opset != RAISED_OPSET or found:
            raise ValueError(f"{source.name}: cannot be raised from {opset} to iOS 18 {sorted(found)}")
        raise_function(function, opset, NEW_OPSET, lambda operation: ())
    raise_versions(program.model, "", {part.prefix}, IOS18)
    assert program.model.specificationVersion == IOS18 > IOS17
    (path,) = target.rglob("*.mlmodel")
    path.write_bytes(schema.serialize_model(program.model))
    return target
