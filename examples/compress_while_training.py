"""Compresses a network while it trains, converts it to Core ML and runs the package, all without a Mac.

A small network learns to read the digits of scikit-learn: 1,797 real images that come with the package. Compressed
after training, it forgets them at 1 bit or with three quarters of its weights zero; compressed while it trains, it does
not. Each network is converted by coremltools, and the package is run here on test images.

Needs more than corepress: pip install 'corepress[torch,coremltools]' scikit-learn
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import coremltools as ct
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from corepress import coreml, runtime
from corepress.optimize.torch.palettization import (
    DKMPalettizer,
    DKMPalettizerConfig,
    PostTrainingPalettizer,
    PostTrainingPalettizerConfig,
)
from corepress.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig

BATCH = 64


class Network(nn.Module):
    """Three convolutions and two linear layers, 23,000 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


class Digits:
    """Images of digits, and what they are; three quarters for training, the others for tests."""

    def __init__(self) -> None:
        images, labels = load_digits(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(images))
        pixels = torch.tensor(images[order].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32)
        digits = torch.tensor(labels[order])
        self.images, self.test_images = pixels[:1347], pixels[1347:]
        self.labels, self.test_labels = digits[:1347], digits[1347:]

    @property
    def steps(self) -> int:
        """Steps of training in an epoch."""
        return len(self.images) // BATCH


def train(network: nn.Module, data: Digits, epochs: int, rate: float, step: Callable[[], None] = lambda: None) -> None:
    """Train a network; `step` is called after each step, as the optimizers for compression need it."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * data.steps, pct_start=0.2)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(data.images), generator=generator)
        for chosen in order[: data.steps * BATCH].reshape(-1, BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(data.images[chosen]), data.labels[chosen], label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            schedule.step()
            step()


def palettized(network: nn.Module, bits: int) -> nn.Module:
    """Palettes that are found after training."""
    config = PostTrainingPalettizerConfig.from_dict({"global_config": {"n_bits": bits}})
    return PostTrainingPalettizer(network, config).compress()


def palettized_in_training(network: nn.Module, bits: int, data: Digits, epochs: int) -> nn.Module:
    """Palettes that are learnt, with the weights."""
    options = {"n_bits": bits, "weight_threshold": 100}
    palettizer = DKMPalettizer(network, DKMPalettizerConfig.from_dict({"global_config": options}))
    train(palettizer.prepare(inplace=True), data, epochs, 1e-3, palettizer.step)
    return palettizer.finalize()


def pruned(network: nn.Module, sparsity: float) -> nn.Module:
    """The smallest weights become zero after training."""
    options = {"initial_sparsity": sparsity, "target_sparsity": sparsity}
    pruner = MagnitudePruner(network, MagnitudePrunerConfig.from_dict({"global_config": options}))
    pruner.prepare(inplace=True)
    return pruner.finalize()


def pruned_in_training(network: nn.Module, sparsity: float, data: Digits, epochs: int) -> nn.Module:
    """The smallest weights become zero, more and more of them, while the others are trained."""
    updates = f"range(0, {epochs * data.steps * 2 // 3}, {max(1, data.steps // 3)})"
    options = {"scheduler": {"update_steps": updates}, "target_sparsity": sparsity}
    pruner = MagnitudePruner(network, MagnitudePrunerConfig.from_dict({"global_config": options}))
    train(pruner.prepare(inplace=True), data, epochs, 2e-3, pruner.step)
    return pruner.finalize()


def convert(network: nn.Module, destination: Path) -> None:
    """Convert a network to a package; what is marked in the network is stored compressed."""
    image = torch.zeros(1, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), image)
    package = ct.convert(
        traced,
        inputs=[ct.TensorType("image", image.shape)],
        outputs=[ct.TensorType("scores")],
        minimum_deployment_target=ct.target.iOS18,
        skip_model_load=True,
    )
    package.save(str(destination))


def evaluate(package: Path, data: Digits) -> tuple[float, int]:
    """The share of test images that the package reads, and the bytes of its weights."""
    model = runtime.load(package)
    scores = model.predict([{"image": image[None].numpy()} for image in data.test_images])
    found = np.array([each["scores"].argmax() for each in scores])
    weights = coreml.inspect(package).weights
    return float((found == data.test_labels.numpy()).mean()), sum(weight.bytes for weight in weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=1, help="bits of a palette's indices (default: 1)")
    parser.add_argument("--sparsity", type=float, default=0.75, help="share of zeros (default: 0.75)")
    parser.add_argument("--epochs", type=int, default=8, help="of training while compressing (default: 8)")
    parser.add_argument("--output", type=Path, help="folder for the packages (default: a temporary one)")
    options = parser.parse_args()
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)

    data, network = Digits(), Network()
    train(network, data, 2 * options.epochs, 4e-3)
    zeros = f"{options.sparsity:.0%} zeros"
    compressed = {
        "as trained": deepcopy(network),
        f"{options.bits}-bit palettes, after training": palettized(deepcopy(network), options.bits),
        f"{options.bits}-bit palettes, while training": palettized_in_training(
            deepcopy(network), options.bits, data, options.epochs
        ),
        f"{zeros}, after training": pruned(deepcopy(network), options.sparsity),
        f"{zeros}, while training": pruned_in_training(deepcopy(network), options.sparsity, data, options.epochs),
    }
    print(f"{'network':32} {'weights':>9} {'test images read':>17}")
    with tempfile.TemporaryDirectory() as folder:
        for name, each in compressed.items():
            package = (options.output or Path(folder)) / f"{name.replace(' ', '-').replace(',', '')}.mlpackage"
            convert(each, package)
            accuracy, size = evaluate(package, data)
            print(f"{name:32} {size / 1000:6.1f} kB {accuracy:17.1%}", flush=True)


if __name__ == "__main__":
    main()
