"""Small programs to calibrate."""

from __future__ import annotations

import numpy as np
import pytest
from coreml_helpers import quiet

pytest.importorskip("torch")
pytest.importorskip("coremltools")


@pytest.fixture(scope="session")
def mb():
    with quiet():
        from coremltools.converters.mil import Builder
    return Builder


@pytest.fixture
def save(mb, tmp_path):
    """Save bodies of functions as a package: "main", "f1" and so on."""

    def save(*bodies, inputs, version=9, half=False, states=(), name="built"):
        with quiet():
            import coremltools as ct
            from coremltools.converters.mil.mil import Function, Program, types

        target = getattr(ct.target, {6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18"}[version])
        dtypes = {"float32": types.fp32, "int32": types.int32, "float16": types.fp16}
        with quiet():
            program = Program()
            for index, body in enumerate(bodies):
                placeholders = {
                    each: (mb.state_tensor_placeholder if each in states else mb.placeholder)(shape, dtypes[dtype])
                    for each, (shape, dtype) in inputs.items()
                }
                with Function(placeholders, opset_version=target) as function:
                    found = body(*(function.inputs[each] for each in inputs))
                    function.set_outputs(list(found) if isinstance(found, tuple | list) else [found])
                program.add_function(f"f{index}" if index else "main", function)
            program.default_function_name = "main"
            model = ct.convert(
                program,
                minimum_deployment_target=target,
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                pass_pipeline=None if half else ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )
            path = tmp_path / f"{name}.mlpackage"
            model.save(str(path))
        return path

    return save


@pytest.fixture
def rng():
    return np.random.default_rng(0)
