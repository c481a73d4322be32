"""Vectors of a weight's values, as coremltools orders them."""

from __future__ import annotations

from math import prod

import torch


def vectorize(
    current_tensor: torch.Tensor, cluster_dim: int, vector_ch_axis: int = 0
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a weight's values as vectors, and those that are left over.

    Parameters
    ----------
    current_tensor : torch.Tensor
    cluster_dim : int
        Values of a vector.
    vector_ch_axis : int
        Along which vectors of more than one value lie.

    Returns
    -------
    vectors : torch.Tensor, shape (n, cluster_dim)
    pad : torch.Tensor or None
        The last values, where the vectors do not divide the weight.
    """
    left_over = current_tensor.numel() % cluster_dim
    if cluster_dim > 1:
        current_tensor = current_tensor.transpose(vector_ch_axis, -1)
    if not left_over:
        return current_tensor.reshape(-1, cluster_dim), None
    values = current_tensor.flatten()
    return values[:-left_over].reshape(-1, cluster_dim), values[-left_over:]


def devectorize(
    current_tensor: torch.Tensor,
    pad: torch.Tensor | None,
    target_size: torch.Size,
    cluster_dim: int,
    vector_ch_axis: int = 0,
) -> torch.Tensor:
    """Return the weight whose `vectorize` returned these vectors.

    Parameters
    ----------
    current_tensor : torch.Tensor, shape (n, cluster_dim)
    pad : torch.Tensor or None
    target_size : torch.Size
        The weight's shape.
    cluster_dim, vector_ch_axis : int
        As given to `vectorize`.
    """
    values = current_tensor.flatten()
    if pad is not None:
        values = torch.cat((values, pad))
    shape = list(target_size)
    if cluster_dim == 1:
        return values.reshape(shape)
    shape[vector_ch_axis], shape[-1] = shape[-1], shape[vector_ch_axis]
    assert values.numel() == prod(shape)
    return values.reshape(shape).transpose(vector_ch_axis, -1)
