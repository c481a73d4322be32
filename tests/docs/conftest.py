from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from code_blocks import ROOT
from small_models import build_classifier, build_encoder, build_network, build_unet

MODELS = {
    "UNet.mlpackage": build_unet,
    "Encoder.mlpackage": build_encoder,
    "Classifier.mlpackage": build_classifier,
    "DeepLab.mlmodel": build_network,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with the models that the documentation takes for granted."""
    folder = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        build(folder / name)
    return folder


@pytest.fixture
def workplace(models, tmp_path, monkeypatch) -> Path:
    """A current folder with links to these models, and a copy of the examples."""
    for source in models.iterdir():
        (tmp_path / source.name).symlink_to(source)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path
