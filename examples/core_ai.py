"""From a PyTorch model to a compressed Core AI asset that is run and compared here, without a Mac.

A small network learns to read the digits of scikit-learn: 1,797 real images that come with the package. coreai-torch
converts it to an asset (.aimodel), corepress compresses that in several ways, and Core AI's own run-time runs each on
test images: size, signal-to-noise ratio of the outputs, and how many digits are read correctly.

Needs more than corepress: pip install 'corepress[coreai,torch]' coreai-torch scikit-learn
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from corepress import coreai, runtime

RECIPES = {
    "8 bits": {"quantize": {"dtype": "int8"}},
    "4 bits": {"palettize": {"nbits": 4}},
    "4 bits, groups of 8": {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 8}},
    "4-bit floats, powers of two as scales": {
        "quantize": {
            **{"dtype": "float4_e2m1fn", "scale_dtype": "float8_e8m0fnu"},
            **{"granularity": "per_block", "block_size": 16},
        }
    },
    "2 bits": {"palettize": {"nbits": 2}},
}


def trained(images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """A network that has learnt to read digits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(30):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def save_asset(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Convert a model to an asset."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        from coreai_torch import TorchConverter, get_decomp_table

        exported = torch.export.export(model, (example,)).run_decompositions(get_decomp_table())
        converter = TorchConverter()
        converter.add_exported_program(exported, input_names=["image"], output_names=["digit"])
        converter.to_coreai().save_asset(path)


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """How many of a hundred images an asset reads correctly, as Core AI runs it."""
    model = runtime.load(path)
    found = [int(model.predict({"image": image[None]})["digit"].argmax()) for image in images]
    return 100 * float(np.mean(np.array(found) == labels))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="keep the assets in this folder")
    folder = parser.parse_args().output

    digits = load_digits()
    images = (digits.images[:, None] / 16).astype(np.float32)
    train, test = slice(0, 1400), slice(1400, 1600)
    model = trained(torch.from_numpy(images[train]), torch.from_numpy(digits.target[train]))

    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        original = place / "Digits.aimodel"
        save_asset(model, torch.from_numpy(images[:1]), original)
        calibration = [{"image": image[None]} for image in images[:64]]
        statistics = coreai.calibrate(original, calibration)
        samples = [{"image": image[None]} for image in images[test]]

        print(f"{'':40}{'size':>9}  {'output SNR':>10}  {'digits read':>11}")
        size = coreai.inspect(original).asset_bytes
        print(
            f"{'as trained':40}{size / 1000:6.1f} kB  {'':>10}  {accuracy(original, images[test], digits.target[test]):9.1f} %"
        )
        for name, recipe in RECIPES.items():
            for known in (None, statistics):
                smaller = place / f"Digits, {name}{', calibrated' if known else ''}.aimodel"
                report = coreai.compress(
                    original, smaller, recipe, calibration=known, weight_threshold=256, overwrite=True
                )
                assert coreai.verify(original, smaller).ok
                ratio = coreai.compare(original, smaller, inputs=samples).outputs[0].snr_db
                correct = accuracy(smaller, images[test], digits.target[test])
                row = f"{name}{', calibrated' if known else ''}"
                print(f"{row:40}{report.bytes_after / 1000:6.1f} kB  {ratio:7.1f} dB  {correct:9.1f} %")


if __name__ == "__main__":
    main()
