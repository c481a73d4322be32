"""Arrays to compressed tensors: one function per spec, no loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_finite_weight, axis_layout, block_layout, checked_axis
from .errors import TooFewZerosError
from .palettes import palettize, palettize_all
from .specs import Palettize, Prune, Quantize, Spec
from .tensors import QUANTIZED_DTYPES, CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor

__all__ = ["apply", "input_axis", "palettize", "prune", "quantize"]


def quantize(
    weight: Any,
    *,
    dtype: str = "int8",
    mode: str = "linear_symmetric",
    granularity: str = "per_channel",
    block_size: int | tuple[int, ...] = 32,
    scale_search: str | None = None,
    channel_axis: int | None = None,
    num_threads: int | None = None,
) -> QuantizedTensor:
    """Replace weights by integers with a scale: ``weight = scale * (data - zero_point)``.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
        Any shape and strides; never written to. float64 is narrowed to float32.
    dtype : {"int8", "uint8", "int4", "uint4"}
        Integer type of the codes.
    mode : {"linear_symmetric", "linear"}
        Symmetric about zero (int8 codes -127 to 127 and int4 codes -7 to 7, no zero point; uint8 codes 0 to 254 about
        127, uint4 codes 0 to 14 about 7), or over the range of the values widened to include zero, with zero points.
    granularity : {"per_channel", "per_tensor", "per_block"}
        What shares a scale.
    block_size : int or tuple of int
        For ``"per_block"``. A number: entries of the input channel axis that share a scale, for each output channel;
        other axes whole. A tuple: entries along each axis of the weight, 0 for the whole axis. Must divide the axes.
    scale_search : {"mse"}, optional
        Search each scale, and in ``"linear"`` mode each zero point, for the least squared error.
    channel_axis : int, optional
        Output channel axis, with scales of its own for each entry; None for axis 0. The input channel axis is 1 for 0,
        0 for 1, -2 for -1 and -1 for -2, as in coremltools' operations; blocks along others need a tuple.
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
        For values out of range, a block size that does not divide the axis, and NaN or infinite weights.

    Notes
    -----
    The scale is coremltools' (the range over the number of codes, rounded to the weight's dtype), found in double
    precision, so that float16 ranges beyond 32,768 do not overflow and tiny ones do not give a scale of 0. Codes are
    the quotients in float32, rounded half to even. An all-zero block has scale 1. Where the scale is subnormal, and so
    has few digits, the next one above is taken if its squared error is smaller.

    ``scale_search="mse"`` tries scales from 5/8 to 17/16 of that one, so that far values are clipped, and improves the
    best by turns: the least-squares scale for the codes, the codes for that scale, neighbouring zero points. Symmetric
    codes then use the end that is left out otherwise: int4 codes are -8 to 7, those of uint4 0 to 15 about 7. The
    result is never worse than without the search.
    """
    spec = Quantize(
        dtype=dtype,
        mode=mode,
        granularity=granularity,
        block_size=block_size,
        scale_search=scale_search,
        channel_axis=channel_axis,
    )
    return _quantize(weight, spec, num_threads)


def _quantize(weight: Any, spec: Quantize, num_threads: int | None) -> QuantizedTensor:
    weight = as_finite_weight("quantize", weight, num_threads)
    if weight.size == 0:
        raise ValueError(f"quantize: weight has no elements (shape {weight.shape})")
    block_counts = _block_counts(spec, weight.shape)
    nbits, storage = QUANTIZED_DTYPES[spec.dtype]
    symmetric, is_signed = spec.mode == "linear_symmetric", storage is np.int8
    layout = block_layout(weight.shape, block_counts)
    data, scale, zero_point = _core.quantize(
        weight, layout, nbits, is_signed, symmetric, spec.scale_search == "mse", num_threads
    )
    offsets = None if symmetric and is_signed else zero_point.view(storage).reshape(block_counts)
    return QuantizedTensor(weight.shape, data, scale.reshape(block_counts), offsets, spec.dtype)


def _block_counts(spec: Quantize, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Number of blocks along each axis."""
    sizes = [0] * len(shape)
    if spec.granularity == "per_block" and not isinstance(spec.block_size, int):
        if len(spec.block_size) != len(shape):
            raise ValueError(f"quantize: block_size {spec.block_size} must have one entry per axis (shape {shape})")
        sizes = list(spec.block_size)
    elif spec.granularity != "per_tensor":
        output = checked_axis("quantize", "channel_axis", spec.channel_axis or 0, shape)
        sizes[output] = 1
        if spec.granularity == "per_block" and isinstance(spec.block_size, int):
            sizes[input_axis(spec.channel_axis or 0, shape)] = spec.block_size
    for axis, (size, length) in enumerate(zip(sizes, shape, strict=True)):
        if size and length % size:
            which = "last axis" if axis == len(shape) - 1 else f"axis {axis} of length"
            raise ValueError(f"quantize: {which} {length} is not a multiple of block_size {size} (shape {shape})")
    return tuple(length // size if size else 1 for size, length in zip(sizes, shape, strict=True))


def input_axis(output_axis: int, shape: tuple[int, ...]) -> int:
    """The input channel axis that goes with an output channel axis in coremltools' operations."""
    pairs = {0: 1, 1: 0, -1: -2, -2: -1}
    if output_axis not in pairs:
        raise ValueError(
            f"quantize: a block_size of one number needs a channel_axis of 0, 1, -1 or -2, not {output_axis}; "
            f"give one per axis (shape {shape})"
        )
    return checked_axis("quantize", "block_size's input axis", pairs[output_axis], shape)


def prune(
    weight: Any,
    *,
    target_sparsity: float | None = None,
    threshold: float | None = None,
    n_m_ratio: tuple[int, int] | None = None,
    block_size: int | None = None,
    dim: int | None = None,
    minimum_sparsity_percentile: float = 0.0,
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
    minimum_sparsity_percentile : float
        With `threshold`: the least fraction of zeros, in [0, 1], that makes pruning worth it.
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
        For values out of range, NaN or infinite weights, and fewer zeros than `minimum_sparsity_percentile`
        (`TooFewZerosError`).

    Notes
    -----
    Magnitudes are compared exactly, and norms as sums of squares in double precision, so that neither the range nor
    the precision of float16 decides.
    """
    spec = Prune(
        target_sparsity=target_sparsity,
        threshold=threshold,
        n_m_ratio=n_m_ratio,
        block_size=block_size,
        dim=dim,
        minimum_sparsity_percentile=minimum_sparsity_percentile,
    )
    return _prune(weight, spec, num_threads)


def _prune(weight: Any, spec: Prune, num_threads: int | None) -> SparseTensor:
    weight = as_finite_weight("prune", weight, num_threads)
    keep = _structure(weight, spec, num_threads) if spec.is_structured else None
    if keep is None:
        mask, nnz = _core.magnitude_mask(weight, _threshold(weight, spec, num_threads), num_threads)
    else:
        mask, nnz = _core.mask_of_kept(weight, keep, num_threads)
    if weight.size - nnz < spec.minimum_sparsity_percentile * weight.size:
        raise TooFewZerosError(
            f"prune: {weight.size - nnz} of {weight.size} values become zero, less than minimum_sparsity_percentile "
            f"{spec.minimum_sparsity_percentile} (shape {weight.shape})"
        )
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
