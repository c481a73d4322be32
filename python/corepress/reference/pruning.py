"""Magnitude pruning, and the sparse form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def magnitude_of_sparsity(weight: NDArray[Any], target_sparsity: float) -> float:
    """Return the largest magnitude that pruning to a target sparsity zeroes: ``a[floor((n - 1) * s)]``.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    target_sparsity : float
        Fraction s in [0, 1]. 0 gives 0: only zeros are removed; 1 gives infinity: everything is.
    """
    if target_sparsity == 0 or weight.size == 0:
        return 0.0
    if target_sparsity == 1:
        return math.inf
    magnitudes = np.sort(np.abs(weight.astype(np.float64)).reshape(-1))
    return float(magnitudes[math.floor((weight.size - 1) * target_sparsity)])


def magnitude_mask(weight: NDArray[Any], threshold: float) -> NDArray[np.bool_]:
    """Return where ``|weight| > threshold``, compared in float64, hence exactly."""
    above: NDArray[np.bool_] = np.abs(weight.astype(np.float64)) > threshold
    return above


def n_m_mask(weight: NDArray[Any], n_m_ratio: tuple[int, int], dim: int) -> NDArray[np.bool_]:
    """Return the mask of survivors when the n smallest of every m consecutive weights along an axis are removed.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    n_m_ratio : tuple of int
        n and m. Among equal magnitudes the first is removed first.
    dim : int
        The axis. It is padded with zeros, which are removed first.
    """
    n, m = n_m_ratio
    lines = np.moveaxis(np.abs(weight), dim, -1)
    keep = np.zeros(lines.shape, np.bool_)
    for begin in range(0, lines.shape[-1], m):
        group = lines[..., begin : begin + m]
        length = group.shape[-1]
        order = np.argsort(group, axis=-1, kind="stable")
        np.put_along_axis(keep[..., begin : begin + m], order[..., max(0, n - (m - length)) :], True, axis=-1)
    return np.moveaxis(keep, -1, dim)


def block_mask(weight: NDArray[Any], target_sparsity: float, block_size: int, dim: int) -> NDArray[np.bool_]:
    """Return where a block's norm is above ``a[floor((n - 1) * s)]``, `a` the sorted norms of all weights' blocks.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape, at least one element.
    target_sparsity : float
        Fraction s, above 0 and below 1.
    block_size : int
        Consecutive weights along the axis that are a block; the last one may be shorter.
    dim : int
        The axis.
    """
    squares = np.moveaxis(weight.astype(np.float64) ** 2, dim, 0)
    norms = np.zeros_like(squares)
    for begin in range(0, squares.shape[0], block_size):
        total = np.zeros(squares.shape[1:])
        for row in squares[begin : begin + block_size]:
            total += row
        norms[begin : begin + block_size] = total
    limit = np.sort(norms.reshape(-1))[math.floor((norms.size - 1) * target_sparsity)]
    above: NDArray[np.bool_] = np.moveaxis(norms > limit, 0, dim)
    return above


def encode_sparse(weight: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return the weights where `mask` is true, in row-major order."""
    return weight[mask]


def decode_sparse(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Return an array of the mask's shape with `values` where it is true and 0 elsewhere."""
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask] = values
    return dense
