"""Small functions under coremltools' names."""

from __future__ import annotations

from typing import Any

import torch

from ....training.observers import is_per_channel, is_symmetric, quantized_range

is_per_channel_quant = is_per_channel
is_symmetric_quant = is_symmetric


def get_quant_range(n_bits: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the smallest and the largest integer of this many bits."""
    return quantized_range(n_bits, dtype)


def get_n_bits_from_range(quant_min: int, quant_max: int) -> int:
    """Return how many bits integers from `quant_min` to `quant_max` have."""
    return (quant_max - quant_min).bit_length()


def is_pytorch_defined_observer(observer: Any) -> bool:
    """Return whether an observer is PyTorch's own, or does nothing."""
    from .modules.observers import NoopObserver

    return isinstance(observer, NoopObserver) or type(observer).__module__.startswith("torch.")
