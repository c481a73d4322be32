"""Activations."""

from __future__ import annotations

import torch
from torch import Tensor

from ..registry import implements


@implements("relu", exact=True)
def relu(x: Tensor) -> Tensor:
    return torch.relu(x)
