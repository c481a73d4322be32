"""Which values of a weight are kept: masks by magnitude."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import NonFiniteError
from ..kernels import n_m_mask as n_m_mask_of_array

# The first of the axes that make up one slice, which is kept or removed as a whole.
SLICES = {"per_kernel": 2, "per_channel": 1}
# Products such as 7/8 * 8 fall short of a whole number by rounding errors, which must not cost a zero.
ROUNDING = 1e-6


@dataclass(frozen=True)
class MaskRule:
    """How the values that a mask removes are chosen.

    Attributes
    ----------
    granularity : {"per_scalar", "per_kernel", "per_channel"}
        What is kept or removed: values, or slices along the first two axes or the first one, by their L2 norms. Weights
        of one or two axes are pruned by values.
    block_size : int
        How many neighbours along the first axis are kept or removed together, by their L2 norm.
    n_m_ratio : (int, int), optional
        Of every m neighbours along `dim`, at most n are removed, instead of a share of the whole weight.
    dim : int
        0 for the output channels or 1 for the input channels.
    """

    granularity: str = "per_scalar"
    block_size: int = 1
    n_m_ratio: tuple[int, int] | None = None
    dim: int = 1

    def mask(self, weight: torch.Tensor, sparsity: float) -> torch.Tensor:
        """Return a mask that removes about this share of a weight.

        Returns
        -------
        torch.Tensor of bool
            True is kept. It can be multiplied with the weight: the axes of slices have length 1.
        """
        if self.n_m_ratio is not None:
            length = self.n_m_ratio[1]
            zeros = int(sparsity * length + ROUNDING)
            if zeros > 0:
                return n_m_mask(weight, (zeros, length), self.dim)
        return magnitude_mask(weight, sparsity, self.block_size, self.granularity)


def magnitude_mask(
    weight: torch.Tensor, sparsity: float, block_size: int = 1, granularity: str = "per_scalar"
) -> torch.Tensor:
    """Return a mask that keeps the values, or slices, of largest magnitude.

    Parameters
    ----------
    weight : torch.Tensor of floats, 1 to 5 axes
    sparsity : float
        The share that is removed, 0 to 1. Rounded down to whole values; what is as large as the smallest that is kept
        is kept too.
    block_size, granularity
        As of `MaskRule`.

    Returns
    -------
    torch.Tensor of bool
        True is kept; the axes of slices have length 1.

    Raises
    ------
    ValueError
        If the granularity is another one, or the weight has too many axes.
    """
    if not 1 <= weight.ndim <= 5:
        raise ValueError(f"magnitude_mask: the weight must have 1 to 5 axes, not shape {tuple(weight.shape)}")
    magnitudes = _magnitudes(weight.detach(), granularity)
    if block_size > 1:
        magnitudes = _of_blocks(magnitudes, block_size)
    if magnitudes.numel() == 0:
        return torch.ones_like(magnitudes, dtype=torch.bool)
    # Single precision, as in coremltools, whose masks these are.
    kept = int(np.ceil(np.float32(magnitudes.numel()) * np.float32(1 - sparsity)))
    if kept == 0:
        return torch.zeros_like(magnitudes, dtype=torch.bool)
    return magnitudes >= _of_rank(magnitudes, magnitudes.numel() - min(kept, magnitudes.numel()))


def n_m_mask(weight: torch.Tensor, n_m_ratio: tuple[int, int], dim: int = 1) -> torch.Tensor:
    """Return a mask that removes the n values of smallest magnitude of every m neighbours.

    Parameters
    ----------
    weight : torch.Tensor, 2 to 5 axes
    n_m_ratio : (int, int)
        n and m; 0 <= n <= m.
    dim : int
        The axis of the neighbours, 0 or 1. It is padded with zeros to a multiple of m, which are removed first; of
        equal magnitudes the first is.

    Returns
    -------
    torch.Tensor of bool
        In the weight's shape; True is kept.

    Raises
    ------
    ValueError
        For ratios, axes and shapes out of range.
    """
    zeros, length = n_m_ratio
    if not 0 <= zeros <= length or length < 1:
        raise ValueError(f"n_m_mask: n_m_ratio must be n of m with 0 <= n <= m, not {tuple(n_m_ratio)}")
    if dim not in (0, 1):
        raise ValueError(f"n_m_mask: dim must be 0 (output channels) or 1 (input channels), not {dim!r}")
    if not 2 <= weight.ndim <= 5:
        raise ValueError(f"n_m_mask: the weight must have 2 to 5 axes, not shape {tuple(weight.shape)}")
    weight = weight.detach()
    if weight.device.type == "cpu" and length <= 1024:
        try:
            return torch.from_numpy(n_m_mask_of_array(weight.float().numpy(), zeros, length, dim))
        except NonFiniteError:
            pass  # a training that diverged: the largest are kept still
    rows = weight.abs().movedim(dim, -1)
    channels = rows.shape[-1]
    rows = torch.nn.functional.pad(rows, (0, -channels % length))
    groups = rows.reshape(-1, length)
    removed = groups.sort(dim=1, stable=True).indices[:, :zeros]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(1, removed, False)
    return mask.reshape(rows.shape)[..., :channels].movedim(-1, dim)


def _magnitudes(weight: torch.Tensor, granularity: str) -> torch.Tensor:
    """Absolute values, or the norms of slices, whose axes then have length 1."""
    if granularity == "per_scalar" or weight.ndim <= 2:
        return weight.abs()
    if granularity not in SLICES:
        names = ", ".join(("per_scalar", *SLICES))
        raise ValueError(
            f"magnitude_mask: Unsupported granularity {granularity!r} for shape "
            f"{tuple(weight.shape)}; these are: {names}"
        )
    begin = SLICES[granularity]
    norms: torch.Tensor = torch.linalg.vector_norm(weight.flatten(begin), dim=-1)
    return norms.reshape(*norms.shape, *[1] * (weight.ndim - begin))


def _of_blocks(magnitudes: torch.Tensor, block_size: int) -> torch.Tensor:
    """The norm of the block of each element; the last block is padded with zeros."""
    rows = len(magnitudes)
    pairs = [0, 0] * (magnitudes.ndim - 1)
    padded = torch.nn.functional.pad(magnitudes, (*pairs, 0, -rows % block_size))
    blocks = padded.reshape(-1, block_size, *magnitudes.shape[1:])
    norms = blocks.pow(2).sum(1, keepdim=True).sqrt().expand_as(blocks)
    return norms.reshape(padded.shape)[:rows]


def _of_rank(magnitudes: torch.Tensor, rank: int) -> torch.Tensor:
    """The element of a rank, 0 the smallest; a partial sort finds it."""
    flat = magnitudes.flatten()
    if flat.device.type == "cpu" and flat.dtype != torch.float64:
        found = np.partition(flat.float().numpy(), rank)[rank]
        return torch.tensor(found, dtype=flat.dtype)
    kth: torch.Tensor = flat.kthvalue(rank + 1).values
    return kth
