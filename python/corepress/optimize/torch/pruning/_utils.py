"""Masks under coremltools' names; `corepress.training.masks` makes them."""

from __future__ import annotations

import torch

from ....training import masks


def magnitude_ranked_mask(
    weights: torch.Tensor, sparsity_fraction: float, block_size: int, granularity: str
) -> torch.Tensor:
    """Return `corepress.training.masks.magnitude_mask`: bool, True is kept."""
    return masks.magnitude_mask(weights, sparsity_fraction, block_size, granularity)


def n_m_mask(weights: torch.Tensor, nm: tuple[int, int], dim: int | None = 1) -> torch.Tensor:
    """Return `corepress.training.masks.n_m_mask` as numbers: 1 is kept, 0 is not."""
    return masks.n_m_mask(weights, nm, 1 if dim is None else dim).float()
