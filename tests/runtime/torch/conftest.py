"""Small programs, built with coremltools and run by PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress.coreml.format.package import Package
from corepress.coreml.format.schema import read_model
from helpers.programs import save_program

pytest.importorskip("torch")
pytest.importorskip("coremltools")


@pytest.fixture(scope="session")
def mb():
    with quiet():
        from coremltools.converters.mil import Builder
    return Builder


@pytest.fixture
def save(tmp_path):
    """Save bodies of functions as a package: "main", "f1" and so on."""

    def save(*bodies, inputs, **options):
        return save_program(tmp_path / "built.mlpackage", bodies, inputs, **options)

    return save


@pytest.fixture
def load():
    """Load a function of a package."""

    def load(path, precision="float32", function_name="main"):
        from corepress.runtime.torch.backend import load_program

        package = Package.open(path)
        return load_program(package, read_model(package.model_path), function_name, precision)

    return load


@pytest.fixture
def rng():
    return np.random.default_rng(0)
