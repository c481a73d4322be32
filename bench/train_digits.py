"""Trains the network of `corepress demo`, which reads handwritten digits, and writes it with its images.

    python bench/train_digits.py [--output python/corepress/demo/data/digits.npz]

Needs torch and scikit-learn, whose `load_digits` has 1,797 images of 8 x 8 pixels. 1,200 train the network, the others
are for the test. Batch normalization is folded into the convolutions before it, as converters do, and weights are
rounded to float16. The same versions of torch, NumPy and scikit-learn give the same file on the same kind of CPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from corepress.demo.digits import BLOCKS, DATA, GREY_LEVELS, STAGES

CHANNELS = (16, 32, 64)
TRAINED_ON, SAMPLES = 1200, 128
EPOCHS, BATCH, RATE = 30, 50, 4e-3


class NormedConvolution(nn.Module):
    """A convolution of 3 x 3 pixels, and batch normalization, which `folded` makes part of it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.convolution(x))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the convolution that computes the same."""
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        bias = self.norm.bias - scale * self.norm.running_mean
        return scale[:, None, None, None] * self.convolution.weight, bias


class Network(nn.Module):
    """What `corepress.demo.digits.build_digits` writes, with the same names."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        for stage, (inputs, channels) in enumerate(zip((1, *CHANNELS), CHANNELS, strict=False)):
            self.convolutions[f"stage{stage}_enter"] = NormedConvolution(inputs, channels, 1 if stage == 0 else 2)
            for block in range(BLOCKS):
                for place in ("first", "second"):
                    name = f"stage{stage}_block{block}_{place}"
                    self.convolutions[name] = NormedConvolution(channels, channels)
        self.classifier = nn.Linear(CHANNELS[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        for stage in range(STAGES):
            x = functional.relu(self.convolutions[f"stage{stage}_enter"](x))
            for block in range(BLOCKS):
                name = f"stage{stage}_block{block}"
                inner = functional.relu(self.convolutions[f"{name}_first"](x))
                x = functional.relu(x + self.convolutions[f"{name}_second"](inner))
        return self.classifier(x.mean((2, 3)))

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights and biases by name, with batch normalization folded in."""
        found = {}
        with torch.no_grad():
            for name, layer in self.convolutions.items():
                found[f"{name}_weight"], found[f"{name}_bias"] = layer.folded()
        found |= {
            "classifier_weight": self.classifier.weight.detach(),
            "classifier_bias": self.classifier.bias.detach(),
        }
        return {name: value.numpy().astype(np.float16) for name, value in found.items()}


def train(network: Network, images: Tensor, labels: Tensor) -> None:
    """Train with a fixed order of the images."""
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(network(images[chosen]), labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "digits.npz")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)

    levels, digits = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(levels))  # they are sorted by writer
    levels, digits = levels[order].reshape(-1, 8, 8).astype(np.uint8), digits[order].astype(np.uint8)
    images = torch.tensor(levels[:, None] / GREY_LEVELS, dtype=torch.float32)
    labels = torch.tensor(digits, dtype=torch.int64)

    network = Network()
    train(network, images[:TRAINED_ON], labels[:TRAINED_ON])
    with torch.no_grad():
        found = network.eval()(images[TRAINED_ON:]).argmax(1)
    accuracy = float((found == labels[TRAINED_ON:]).double().mean())
    parts = {"samples": levels[:SAMPLES], "tests": levels[TRAINED_ON:], "labels": digits[TRAINED_ON:]}
    np.savez_compressed(output, **network.arrays(), **parts)
    print(f"{output}: {output.stat().st_size} bytes, reads {accuracy:.1%} of {len(found)} test images")


if __name__ == "__main__":
    main()
