"""Small models, and packages converted from them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corepress import runtime


class Small(torch.nn.Module):
    """A convolution, attention-free head and an embedding of its classes: one of each kind of weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.fc = torch.nn.Linear(16 * 16, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.head = torch.nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.head(self.norm(torch.relu(self.fc(torch.flatten(x, 1)))))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small()


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def train() -> Callable[..., list[float]]:
    """Trains a model towards fixed outputs; returns the losses."""

    def run(
        model: torch.nn.Module, batch: torch.Tensor, steps: int = 3, step: Any = None, **options: Any
    ) -> list[float]:
        goal = torch.randn(len(batch), 8, generator=torch.Generator().manual_seed(2))
        optimizer = torch.optim.SGD(model.parameters(), **({"lr": 0.05} | options))
        losses = []
        for _ in range(steps):
            loss = (model(batch) - goal).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
            if step is not None:
                step()
        return losses

    return run


@pytest.fixture
def converted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., Path]:
    """Converts a model by coremltools, which needs no Mac for that; returns the package."""
    ct = pytest.importorskip("coremltools")

    def run(model: torch.nn.Module, batch: torch.Tensor, target: str = "iOS18") -> Path:
        caplog.set_level(logging.ERROR, "coremltools")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(model.eval(), batch[:1])
            package = ct.convert(
                traced,
                inputs=[ct.TensorType("x", shape=batch[:1].shape)],
                minimum_deployment_target=getattr(ct.target, target),
                skip_model_load=True,
            )
        path = tmp_path / "converted.mlpackage"
        package.save(str(path))
        return path

    return run


@pytest.fixture
def weights_of() -> Callable[[Path], dict[tuple[int, ...], np.ndarray]]:
    """The decompressed weights of a package, by their shapes, which differ in the small model."""

    def read(path: Path) -> dict[tuple[int, ...], np.ndarray]:
        module = runtime.load(path, precision="float32").module
        tensors = [*module.named_parameters(), *module.named_buffers()]
        return {tuple(value.shape): value.detach().float().numpy() for _, value in tensors if value.ndim > 1}

    return read
