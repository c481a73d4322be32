"""Random values.

Streams differ from those of Core ML, distributions do not. A ``seed`` gives the same values in each run; with the
default of -1 they come from PyTorch's generator of the device, which `torch.manual_seed` sets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..limits import limited
from ..registry import implements


def _generator(seed: int, device: torch.device) -> torch.Generator | None:
    return None if seed == -1 else torch.Generator(device).manual_seed(seed)


def _uniform(shape: Tensor, seed: int) -> Tensor:
    device = shape.device
    return torch.rand(limited(shape.tolist()), generator=_generator(seed, device), device=device)


@implements("random_bernoulli")
def random_bernoulli(shape: Tensor, *, prob: float = 0.5, seed: int = -1) -> Tensor:
    """1 with a probability of ``prob``, otherwise 0."""
    return (_uniform(shape, seed) < prob).to(torch.float32)


@implements("random_uniform")
def random_uniform(shape: Tensor, *, low: float = 0.0, high: float = 1.0, seed: int = -1) -> Tensor:
    """From ``low`` to ``high``, which is excluded."""
    return low + (high - low) * _uniform(shape, seed)


@implements("random_normal")
def random_normal(shape: Tensor, *, mean: float = 0.0, stddev: float = 1.0, seed: int = -1) -> Tensor:
    device = shape.device
    return mean + stddev * torch.randn(limited(shape.tolist()), generator=_generator(seed, device), device=device)


@implements("random_categorical")
def random_categorical(x: Tensor, *, mode: str = "logits", size: int = 1, seed: int = -1) -> Tensor:
    """Indices, of the type of ``x``, drawn with replacement from each distribution of the last axis."""
    if mode not in ("logits", "probs"):
        raise ValueError(f"mode must be logits or probs, got {mode!r}")
    limited((*x.shape[:-1], size))
    probabilities = torch.softmax(x, -1) if mode == "logits" else x
    rows = probabilities.reshape(-1, x.shape[-1])
    drawn = torch.multinomial(rows, size, replacement=True, generator=_generator(seed, x.device))
    return drawn.reshape(*x.shape[:-1], size).to(x.dtype)
