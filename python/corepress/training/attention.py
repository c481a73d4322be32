"""Other ways than softmax to assign values to the entries of palettes, in PyTorch's own operations.

They keep a weight for each value and entry while a round is computed: use few bits, or few values.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

MODES = ("hard", "gsm", "topk")


def attended(
    values: torch.Tensor,
    centroids: torch.Tensor,
    *,
    mode: str,
    temperature: float,
    iterations: int,
    tolerance: float,
    prune_threshold: float,
    enforce_zero: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values as means of entries, and the entries that result.

    Parameters
    ----------
    values : torch.Tensor, shape (groups, n) or (groups, n, d)
    centroids : torch.Tensor, shape (groups, k) or (groups, k, d)
    mode : {"hard", "gsm", "topk"}
        The nearest entry; Gumbel softmax; softmax over the two nearest.
    temperature, iterations, tolerance, prune_threshold, enforce_zero
        As in `SoftPaletteOptions`.

    Returns
    -------
    found : torch.Tensor
        Of the values' shape and type.
    palettes : torch.Tensor
        Of the centroids' shape, float32.
    """
    if mode not in MODES:
        raise ValueError(f"SoftPalette: mode must be one of dkm, {', '.join(MODES)}, not {mode!r}")
    scalars = values.ndim == 2
    points = (values[..., None] if scalars else values).float()
    entries = (centroids[..., None] if scalars else centroids).float()

    def assigned(points: torch.Tensor, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        distances = (points[:, :, None] - entries[:, None]).square().sum(-1)
        distances = torch.cat((distances[..., :1] - prune_threshold, distances[..., 1:]), dim=-1)
        if mode == "hard":
            weights = torch.nn.functional.one_hot(distances.argmin(-1), distances.shape[-1]).to(distances.dtype)
        elif mode == "gsm":
            weights = torch.nn.functional.gumbel_softmax(-distances / temperature, dim=-1)
        else:
            nearest, places = distances.topk(2, dim=-1, largest=False)
            weights = torch.zeros_like(distances).scatter(-1, places, torch.softmax(-nearest / temperature, dim=-1))
        return weights, distances.amin(-1).sum()

    def moved(points: torch.Tensor, entries: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        weights, inertia = assigned(points, entries)
        sums = weights.sum(1)[..., None]
        found = torch.where(sums > 0, weights.mT @ points / sums.clamp_min(torch.finfo(sums.dtype).tiny), entries)
        if enforce_zero:
            found = torch.cat((torch.zeros_like(found[:, :1]), found[:, 1:]), dim=1)
        return found, weights @ found, inertia

    last = None
    found = points
    for _ in range(iterations):
        # Gumbel's noise is drawn again, the same, when the round is computed again for its gradient.
        entries, found, inertia = checkpoint(moved, points, entries, use_reentrant=False)
        if last is not None and (last - inertia).abs() <= tolerance:
            break
        last = inertia
    return (found[..., 0] if scalars else found).to(values.dtype), entries[..., 0] if scalars else entries
