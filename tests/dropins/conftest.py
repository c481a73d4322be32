"""coremltools, corepress in its place, and models to give to both."""

from __future__ import annotations

from types import ModuleType

import pytest
from coreml_helpers import quiet
from dropin_helpers import normal


@pytest.fixture(scope="session", autouse=True)
def ct() -> ModuleType:
    with quiet():
        import coremltools
        import coremltools.optimize

        coremltools.optimize.coreml  # noqa: B018
    return coremltools


@pytest.fixture(scope="session")
def peer(ct) -> ModuleType:
    """What is replaced."""
    return ct.optimize.coreml


@pytest.fixture(scope="session")
def cto(ct) -> ModuleType:
    """What replaces it."""
    with quiet():
        import corepress.optimize.coreml
    return corepress.optimize.coreml


@pytest.fixture(scope="session")
def convert(ct):
    """Convert a function of a MIL builder and inputs to a model."""
    from coremltools.converters.mil import Builder as mb

    def convert(body, *shapes: tuple[int, ...], target: str = "iOS18", precision: str = "FLOAT16", **options):
        deployment = getattr(ct.target, target)
        specs = [mb.TensorSpec(shape) for shape in shapes]
        # The builder names the inputs after the function's arguments.
        body = eval(f"lambda {', '.join('xyz'[: len(specs)])}: body(mb, {', '.join('xyz'[: len(specs)])})", locals())
        with quiet():
            program = mb.program(input_specs=specs, opset_version=deployment)(body)
            return ct.convert(
                program,
                convert_to="mlprogram",
                minimum_deployment_target=deployment,
                compute_precision=getattr(ct.precision, precision),
                **options,
            )

    return convert


@pytest.fixture(scope="session")
def two_layers(convert):
    """A convolution and a linear layer, and a bias that nobody compresses."""

    def two_layers(target: str = "iOS18", precision: str = "FLOAT16", **options):
        def body(mb, x):
            x = mb.conv(x=x, weight=normal(64, 32, 3, 3, seed=1), bias=normal(64, seed=2), name="conv")
            x = mb.reduce_mean(x=x, axes=[2, 3], name="mean")
            return mb.linear(x=x, weight=normal(48, 64, seed=3), name="linear")

        return convert(body, (1, 32, 8, 8), target=target, precision=precision, **options)

    return two_layers
