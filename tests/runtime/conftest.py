"""Small models to run, made with coremltools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from coreml_helpers import quiet


@pytest.fixture(scope="session")
def ct() -> ModuleType:
    with quiet():
        import coremltools
        import coremltools.optimize
    return coremltools


@pytest.fixture(scope="session")
def convert(ct, tmp_path_factory) -> Callable[..., Path]:
    """Save a MIL program as a package."""

    def convert(body: Any, specs: dict[str, Any], *, name: str = "model", **options: Any) -> Path:
        from coremltools.converters.mil import Builder as mb

        names = ", ".join(specs)
        function = eval(f"lambda {names}: body(mb, {names})", {"body": body, "mb": mb})
        opset = ct.target.iOS18
        with quiet():
            program = mb.program(input_specs=list(specs.values()), opset_version=opset)(function)
            model = ct.convert(
                program, minimum_deployment_target=opset, skip_model_load=True, convert_to="mlprogram", **options
            )
            path = tmp_path_factory.mktemp(name) / f"{name}.mlpackage"
            model.save(str(path))
        return path

    return convert


def tensor(*shape: Any, dtype: Any = None) -> Any:
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    return mb.TensorSpec(shape, dtype=dtype or types.fp32)


@pytest.fixture(scope="session")
def linear_weight() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def linear(convert, linear_weight) -> Path:
    """y = W x + 1, in float32."""
    ct = pytest.importorskip("coremltools")

    def body(mb: Any, x: Any) -> Any:
        y = mb.linear(x=x, weight=linear_weight, bias=np.ones(5, np.float32), name="product")
        return mb.relu(x=y, name="y")

    return convert(body, {"x": tensor(1, 4)}, name="linear", compute_precision=ct.precision.FLOAT32)


@pytest.fixture(scope="session")
def crooked(convert, linear_weight) -> Path:
    """The same with rounded weights and another name for a result."""
    ct = pytest.importorskip("coremltools")

    def body(mb: Any, x: Any) -> Any:
        y = mb.linear(x=x, weight=np.round(linear_weight * 4) / 4, bias=np.ones(5, np.float32), name="product")
        z = mb.identity(x=y, name="another")
        return mb.relu(x=z, name="y")

    options = {"compute_precision": ct.precision.FLOAT32, "pass_pipeline": ct.PassPipeline.EMPTY}
    return convert(body, {"x": tensor(1, 4)}, name="crooked", **options)


@pytest.fixture(scope="session")
def classifier(classifier_of) -> Path:
    """Five classes of four numbers."""
    return classifier_of(list("abcde"))


@pytest.fixture(scope="session")
def classifier_of(ct, convert, linear_weight) -> Callable[[list[Any]], Path]:
    """The same with other labels."""

    def body(mb: Any, x: Any) -> Any:
        return mb.softmax(x=mb.linear(x=x, weight=linear_weight), axis=-1, name="scores")

    def classifier_of(labels: list[Any]) -> Path:
        config = ct.ClassifierConfig(labels)
        return convert(body, {"x": tensor(1, 4)}, name="classifier", classifier_config=config)

    return classifier_of


@pytest.fixture(scope="session")
def accumulator(ct, convert) -> Path:
    """Adds its input to a state and returns the sum."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.mil import types

    def body(mb: Any, x: Any, total: Any) -> Any:
        value = mb.add(x=mb.read_state(input=total), y=x)
        return mb.coreml_update_state(state=total, value=value, name="y")

    return convert(body, {"x": tensor(3, dtype=types.fp16), "total": mb.StateTensorSpec((3,), dtype=types.fp16)})


@pytest.fixture(scope="session")
def photo(ct, convert) -> Path:
    """Inverts the colours of an image of 6 x 4 pixels: an image in, an image out."""
    with quiet():
        import torch

        class Inverse(torch.nn.Module):
            def forward(self, x):
                return 255.0 - x

        traced = torch.jit.trace(Inverse(), torch.zeros(1, 3, 4, 6))
        model = ct.convert(
            traced,
            inputs=[ct.ImageType("image", shape=(1, 3, 4, 6), color_layout=ct.colorlayout.RGB)],
            outputs=[ct.ImageType("inverse", color_layout=ct.colorlayout.RGB)],
            minimum_deployment_target=ct.target.iOS16,
            skip_model_load=True,
        )
    return model


@pytest.fixture(scope="session")
def photo_package(photo, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.mlpackage"
    photo.save(str(path))
    return path


@pytest.fixture(scope="session")
def image_module():
    return pytest.importorskip("PIL.Image")
