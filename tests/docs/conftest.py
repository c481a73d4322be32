from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from code_blocks import ROOT
from small_models import build_classifier, build_decoder, build_encoder, build_network, build_pitch_tracker, build_unet

MODELS = {
    "UNet.mlpackage": build_unet,
    "Encoder.mlpackage": build_encoder,
    "Classifier.mlpackage": build_classifier,
    "DeepLab.mlmodel": build_network,
    "PitchTracker.mlpackage": build_pitch_tracker,
}


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with the models and samples that the documentation takes for granted."""
    folder = tmp_path_factory.mktemp("models")
    for name, build in MODELS.items():
        build(folder / name)
    if all(map(find_spec, ("coreai", "coreai_torch", "torch"))):
        build_decoder(folder / "Decoder.aimodel")
    rng = np.random.default_rng(0)
    images = rng.standard_normal((8, 3, 32, 32)).astype(np.float32)
    np.save(folder / "image.npy", images[:1])
    np.savez(folder / "frames.npz", frames=rng.standard_normal((8, 1024)).astype(np.float32))
    np.savez(folder / "tokens.npz", tokens=rng.integers(0, 512, (8, 16)).astype(np.int32))
    np.savez(folder / "samples.npz", image=images, label=rng.integers(0, 100, 8))
    return folder


@pytest.fixture
def workplace(models, tmp_path, monkeypatch) -> Path:
    """A current folder with links to these, and a copy of the examples."""
    for source in models.iterdir():
        (tmp_path / source.name).symlink_to(source)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path
