"""Packages of small programs, built with coremltools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coreml_helpers import quiet


def save_program(
    destination: Path,
    bodies: Sequence[Callable[..., Any]],
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    *,
    version: int = 9,
    half: bool = False,
    states: Sequence[str] = (),
) -> Path:
    """Save bodies of functions as a package: "main", "f1" and so on; inputs have a shape and a dtype."""
    with quiet():
        import coremltools as ct
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import Function, Program, types

    target = getattr(ct.target, {6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18"}[version])
    dtypes = {"float32": types.fp32, "int32": types.int32, "float16": types.fp16}
    with quiet():
        program = Program()
        for index, body in enumerate(bodies):
            placeholders = {
                name: (mb.state_tensor_placeholder if name in states else mb.placeholder)(shape, dtypes[dtype])
                for name, (shape, dtype) in inputs.items()
            }
            with Function(placeholders, opset_version=target) as function:
                found = body(*(function.inputs[name] for name in inputs))
                function.set_outputs(list(found) if isinstance(found, tuple | list) else [found])
            program.add_function(f"f{index}" if index else "main", function)
        program.default_function_name = "main"
        ct.convert(
            program,
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            pass_pipeline=None if half else ct.PassPipeline.EMPTY,
            skip_model_load=True,
        ).save(str(destination))
    return destination
