"""Small programs to calibrate."""

from __future__ import annotations

import numpy as np
import pytest
from coreml_helpers import quiet

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

    def save(*bodies, inputs, name="built", **options):
        return save_program(tmp_path / f"{name}.mlpackage", bodies, inputs, **options)

    return save


@pytest.fixture
def rng():
    return np.random.default_rng(0)
