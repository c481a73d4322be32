"""Packages to allocate bits for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from corepress.coreml.format.package import directory_size
from corepress.demo.model import build_unet
from corepress.demo.program import ProgramBuilder
from helpers.shared import folder_of_run, made_once, source_digest


@pytest.fixture(scope="session")
def unet(tmp_path_factory) -> Path:
    """97 weights that can be compressed, specification version 9; tests must not change it."""
    folder = folder_of_run(tmp_path_factory) / f"allocation-{source_digest(build_unet)}"
    return made_once(folder, lambda folder: build_unet(folder / "UNet.mlpackage")) / "UNet.mlpackage"


@pytest.fixture
def size_of():
    """Bytes of all files of a package."""
    return directory_size


@pytest.fixture
def layers(tmp_path):
    """Builds a package of linear layers, one after another, from their weights."""

    def build(weights: dict[str, np.ndarray], name: str = "layers", version: int = 9) -> Path:
        path = tmp_path / f"{name}.mlpackage"
        first = next(iter(weights.values()))
        with ProgramBuilder(path, version, "linear layers") as program:
            x = program.input("x", (1, first.shape[1]), first.dtype.name)
            for layer, weight in weights.items():
                x = program("linear", x=x, weight=program.const(layer, weight), name=f"{layer}_out")
            program.output(x)
        return path

    return build
