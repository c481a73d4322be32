"""Arrays to compressed tensors: one function per spec, no loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_finite_weight, axis_layout, checked_axis, group_layout
from .palettes import palettize, palettize_all
from .specs import Palettize, Prune, Quantize, Spec
from .tensors import CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor

__all__ = ["apply", "palettize", "prune", "quantize"]

# Ranges of the codes, coremltools': symmetric ones leave out one code so that they are centred.
CODE_RANGES = {
    ("int8", "linear_symmetric"): (-127, 127),
    ("int8", "linear"): (-128, 127),
    ("uint8", "linear_symmetric"): (0, 254),
    ("uint8", "linear"): (0, 255),
}


def quantize(
    weight: Any,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    channel_axis: int | None = None,
    num_threads: int | None = None,
) -> QuantizedTensor:
    """Replace weights by integers with a scale: ``weight = scale * (data - zero_point)``.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
        Any shape and strides; never written to. float64 is narrowed to float32.
    dtype : {"int8", "uint8"}
        Integer type of the codes.
    mode : {"linear_symmetric", "linear"}
        Symmetric about zero (int8 codes -127 to 127, no zero point; uint8 codes 0 to 254 about 127), or over the range
        of the values widened to include zero, with zero points.
    granularity : {"per_channel", "per_tensor"}
        What shares a scale.
    channel_axis : int, optional
        Axis with one scale per entry; None for axis 0.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    QuantizedTensor
        Scales in the weight's dtype.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range and for NaN or infinite weights.

    Notes
    -----
    The scale is coremltools' (the range over the number of codes, rounded to the weight's dtype), found in double
    precision, so that float16 ranges beyond 32,768 do not overflow and tiny ones do not give a scale of 0. Codes are
    the quotients in float32, rounded half to even. An all-zero block has scale 1.
    """
    spec = Quantize(dtype=dtype, mode=mode, granularity=granularity, channel_axis=channel_axis)
    return _quantize(weight, spec, num_threads)


def _quantize(weight: Any, spec: Quantize, num_threads: int | None) -> QuantizedTensor:
    weight = as_finite_weight("quantize", weight, num_threads)
    if weight.size == 0:
        raise ValueError(f"quantize: weight has no elements (shape {weight.shape})")
    block_counts = [1] * weight.ndim
    if spec.granularity == "per_channel":
        axis = checked_axis("quantize", "channel_axis", spec.channel_axis or 0, weight.shape)
        block_counts[axis] = weight.shape[axis]
    layout = group_layout(weight.shape, tuple(block_counts))
    symmetric = spec.mode == "linear_symmetric"
    is_signed = spec.dtype == "int8"
    codes, scale, zero_point = _core.quantize(
        weight, layout, CODE_RANGES[spec.dtype, spec.mode], is_signed, symmetric, num_threads
    )
    offsets = None if symmetric and is_signed else zero_point.view(spec.dtype).reshape(block_counts)
    return QuantizedTensor(weight.shape, codes, scale.reshape(block_counts), offsets, spec.dtype)


def prune(
    weight: Any,
    *,
    target_sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    block_size: int | None = None,
    dim: int | None = None,
    num_threads: int | None = None,
) -> SparseTensor:
    """Set the weights of smallest magnitude to zero and store only the others.

    Weights that are zero already, -0 included, are never stored, and decode to +0.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
        Any shape and strides; never written to. float64 is narrowed to float32.
    target_sparsity : float, optional
        Fraction s in [0, 1]. Zero where ``|w| <= a[floor((n - 1) * s)]``, `a` the sorted magnitudes of the n weights,
        so that ties can zero more than asked; 1 zeroes all weights, 0 none.
    threshold : float, optional
        Zero where ``|w| <= threshold``, compared exactly.
    n_m_ratio : tuple of int, optional
        ``(n, m)``: of every m consecutive weights along `dim`, for each position of the other axes, the n of smallest
        magnitude become zero, of equal ones the first. An axis that m does not divide ends as if zeros followed, which
        are the first to go. Give exactly one of this, `target_sparsity` and `threshold`.
    block_size : int, optional
        With `target_sparsity`: zero whole blocks of this many consecutive weights along `dim` (the last may be
        shorter). The magnitude of a weight is then the L2 norm of its block.
    dim : {0, 1}, optional
        Axis of `n_m_ratio` (None: 1, the input channels of a convolution or linear layer) or of `block_size` (None:
        0, the output channels).
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    SparseTensor

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range and for NaN or infinite weights.

    Notes
    -----
    Magnitudes are compared exactly, and norms as sums of squares in double precision, so that neither the range nor
    the precision of float16 decides.
    """
    spec = Prune(
        target_sparsity=target_sparsity, threshold=threshold, n_m_ratio=n_m_ratio, block_size=block_size, dim=dim
    )
    return _prune(weight, spec, num_threads)


def _prune(weight: Any, spec: Prune, num_threads: int | None) -> SparseTensor:
    weight = as_finite_weight("prune", weight, num_threads)
    keep = _structure(weight, spec, num_threads) if spec.is_structured else None
    if keep is None:
        mask, _ = _core.magnitude_mask(weight, _threshold(weight, spec, num_threads), num_threads)
    else:
        mask, _ = _core.mask_of_kept(weight, keep, num_threads)
    return SparseTensor(weight.shape, mask, _core.encode_sparse(weight, mask, num_threads))


def _threshold(weight: NDArray[Any], spec: Prune, num_threads: int | None) -> NDArray[Any]:
    threshold = np.zeros(1, weight.dtype)
    if spec.threshold is not None:
        threshold[0] = _largest_not_above(float(spec.threshold), weight.dtype)
    elif spec.target_sparsity == 1:
        threshold[0] = np.finfo(weight.dtype).max
    elif spec.target_sparsity and weight.size:
        threshold = _core.magnitude_of_rank(weight, _rank(weight.size, spec.target_sparsity), num_threads)
    return threshold


def _rank(size: int, target_sparsity: float) -> int:
    return math.floor((size - 1) * float(target_sparsity))


def _structure(weight: NDArray[Any], spec: Prune, num_threads: int | None) -> NDArray[np.uint8] | None:
    """Return one byte per weight, 0 where it goes; None where blocks make no difference."""
    axis = checked_axis("prune", "dim", spec.axis, weight.shape)
    if spec.n_m_ratio is not None:
        return n_m_keep(weight, spec.n_m_ratio, axis, num_threads)
    if spec.target_sparsity in (0, 1) or weight.size == 0:
        return None
    assert spec.block_size is not None
    assert spec.target_sparsity is not None
    rank = _rank(weight.size, spec.target_sparsity)
    return _core.block_mask(weight, axis_layout(weight.shape, axis), int(spec.block_size), rank, num_threads)


def n_m_keep(weight: NDArray[Any], n_m_ratio: tuple[int, int], axis: int, num_threads: int | None) -> NDArray[np.uint8]:
    """Return one byte per weight: 0 for the n smallest of every m along an axis, 1 for the others."""
    if weight.size == 0:
        return np.zeros(0, np.uint8)
    return _core.n_m_mask(weight, axis_layout(weight.shape, axis), *n_m_ratio, num_threads)


def _largest_not_above(threshold: float, dtype: np.dtype[Any]) -> Any:
    """Round a magnitude down to `dtype`: comparing with the result is comparing with the threshold itself."""
    limit = np.finfo(dtype).max
    rounded = dtype.type(min(threshold, float(limit)))
    return abs(np.nextafter(rounded, dtype.type(0)) if float(rounded) > threshold else rounded)


def _palettize_one(weight: Any, spec: Palettize, num_threads: int | None) -> PalettizedTensor:
    return palettize_all([weight], spec, num_threads)[0]


_APPLY = {Palettize: _palettize_one, Quantize: _quantize, Prune: _prune}


def apply(weight: Any, spec: Spec, *, num_threads: int | None = None) -> CompressedTensor:
    """Compress `weight` as `spec` says; what the functions of this module do with their arguments."""
    compress: Any = _APPLY[type(spec)]
    tensor: CompressedTensor = compress(weight, spec, num_threads)
    return tensor
