"""What a step of quantization-aware training costs beside the plain step, and beside coremltools', in one process.

    python bench/qat_step.py [--batch 16] [--repeat 20] [--json FILE]

A step is the forward and the backward pass of a small convolutional network and its optimizer, on one thread; steps of
all ways take turns, and the least CPU time of each counts. Scale and zero point follow the observers at first; then
they are fixed, or learned.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = os.environ["COREPRESS_NUM_THREADS"] = "1"  # before torch is imported

import torch
from rich.console import Console
from rich.table import Table

import documents

WAYS: dict[str, dict[str, Any]] = {
    "weights": {"activation_dtype": torch.float32},
    "vanilla": {},
    "learnable": {"algorithm": "learnable"},
    "learnable, affine": {"algorithm": "learnable", "quantization_scheme": "affine"},
}


def network() -> torch.nn.Module:
    """Two convolutions with batch normalization, and a linear layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, padding=1),
        torch.nn.BatchNorm2d(32),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, padding=1),
        torch.nn.BatchNorm2d(64),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(1024, 10),
    )


def prepared(package: str, options: dict[str, Any], images: torch.Tensor) -> torch.nn.Module:
    """The network with fake quantization."""
    module = importlib.import_module(f"{package}.optimize.torch.quantization")
    config = module.LinearQuantizerConfig.from_dict({"global_config": options})
    return module.LinearQuantizer(network(), config).prepare(example_inputs=(images,))  # type: ignore[no-any-return]


def step_of(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    """A step of training."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def seconds(steps: dict[str, Callable[[], None]], repeat: int) -> dict[str, float]:
    """The least CPU time of each step."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeat):
        for name, step in steps.items():
            begin = time.process_time()
            step()
            times[name].append(time.process_time() - begin)
    return {name: min(of_step) for name, of_step in times.items()}


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=20)
    documents.add_options(parser)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    images = torch.randn(arguments.batch, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(arguments.batch) % 10
    models = {
        f"{package}: {way}": prepared(package, options, images)
        for package in ("corepress", "coremltools")
        for way, options in WAYS.items()
    }
    models["plain"] = network()
    rows = []
    for observing in (True, False):
        if not observing:
            for model in models.values():
                for module in model.modules():
                    if hasattr(module, "disable_observer"):
                        module.disable_observer()
        steps = {name: step_of(model, images, labels) for name, model in models.items()}
        seconds(steps, 2)
        found = seconds(steps, arguments.repeat)
        table = Table("observers on" if observing else "observers off", "ms", "of plain", "coremltools", "of plain")
        for way in WAYS:
            ours, theirs = (found[f"{package}: {way}"] for package in ("corepress", "coremltools"))
            plain = found["plain"]
            rows.append({"observing": observing, "way": way, "plain": plain, "ours": ours, "coremltools": theirs})
            each = [f"{1e3 * ours:.2f}", f"{ours / plain:.2f}", f"{1e3 * theirs:.2f}", f"{theirs / plain:.2f}"]
            table.add_row(way, *each)
        Console(width=100).print(table)
        print(f"plain: {1e3 * found['plain']:.2f} ms")
    documents.save(arguments, {"batch": arguments.batch}, rows)


if __name__ == "__main__":
    main()
