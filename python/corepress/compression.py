"""Arrays to compressed tensors: one function per spec, no loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import _core
from .arrays import as_finite_weight, block_layout, checked_axis, group_layout
from .specs import Palettize, Prune, Quantize, Spec
from .tensors import QUANTIZED_DTYPES, CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor


def palettize(
    weight: Any,
    *,
    nbits: int,
    mode: str = "kmeans",
    granularity: str = "per_tensor",
    group_size: int = 32,
    channel_axis: int | None = None,
    num_threads: int | None = None,
) -> PalettizedTensor:
    """Replace weights by indices into a table of ``2**nbits`` values, or one table per group of channels.

    The table is the optimum: no other table of that size has a smaller squared error, up to the rounding of its
    entries to the weight's dtype. Each weight then takes its nearest entry, the lower one if two are equally near.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
        Any shape and strides; never written to. float64 is narrowed to float32.
    nbits : {1, 2, 3, 4, 6, 8}
        Bits per index.
    mode : {"kmeans"}
        How the table is found.
    granularity : {"per_tensor", "per_grouped_channel"}
        One table for the tensor, or one per `group_size` entries of `channel_axis`.
    group_size : int
        Channels that share a table; must divide the axis.
    channel_axis : int, optional
        Axis that is grouped; None for axis 0.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    PalettizedTensor
        With indices packed in row-major order, least significant bit first, ascending in value.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For values out of range, a group size that does not divide the axis, and NaN or infinite weights.

    Notes
    -----
    Optimal one-dimensional clustering after Gronlund et al., "Fast exact k-means, k-medians and Bregman divergence
    clustering in 1D", arXiv:1701.07204, on the histogram of the weights. float32 tensors of more than 16,384 weights
    (a group's count) are clustered in some 32,768 buckets first, and cuts between entries then settled to the value.
    """
    spec = Palettize(nbits=nbits, mode=mode, granularity=granularity, group_size=group_size, channel_axis=channel_axis)
    return _palettize(weight, spec, num_threads)


def _palettize(weight: Any, spec: Palettize, num_threads: int | None) -> PalettizedTensor:
    weight = as_finite_weight("palettize", weight, num_threads)
    if weight.size == 0:
        raise ValueError(f"palettize: weight has no elements (shape {weight.shape})")
    group_counts = [1] * weight.ndim
    if spec.granularity == "per_grouped_channel":
        axis = checked_axis("palettize", "channel_axis", spec.channel_axis or 0, weight.shape)
        if weight.shape[axis] % spec.group_size:
            raise ValueError(
                f"palettize: axis {axis} of length {weight.shape[axis]} is not a multiple of group_size "
                f"{spec.group_size} (shape {weight.shape})"
            )
        group_counts[axis] = weight.shape[axis] // spec.group_size
    layout = group_layout(weight.shape, tuple(group_counts))
    lut, indices = _core.palettize(weight, layout, spec.nbits, num_threads)
    return PalettizedTensor(weight.shape, indices, lut.reshape(*group_counts, 2**spec.nbits, 1), spec.nbits)


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
        Zero where ``|w| <= threshold``, compared exactly. Give this or `target_sparsity`.
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
    """
    return _prune(weight, Prune(target_sparsity=target_sparsity, threshold=threshold), num_threads)


def _prune(weight: Any, spec: Prune, num_threads: int | None) -> SparseTensor:
    weight = as_finite_weight("prune", weight, num_threads)
    threshold = np.zeros(1, weight.dtype)
    if spec.threshold is not None:
        threshold[0] = _largest_not_above(float(spec.threshold), weight.dtype)
    elif spec.target_sparsity == 1:
        threshold[0] = np.finfo(weight.dtype).max
    elif spec.target_sparsity and weight.size:
        rank = math.floor((weight.size - 1) * float(spec.target_sparsity))
        threshold = _core.magnitude_of_rank(weight, rank, num_threads)
    mask, _ = _core.magnitude_mask(weight, threshold, num_threads)
    return SparseTensor(weight.shape, mask, _core.encode_sparse(weight, mask, num_threads))


def _largest_not_above(threshold: float, dtype: np.dtype[Any]) -> Any:
    """Round a magnitude down to `dtype`: comparing with the result is comparing with the threshold itself."""
    limit = np.finfo(dtype).max
    rounded = dtype.type(min(threshold, float(limit)))
    return abs(np.nextafter(rounded, dtype.type(0)) if float(rounded) > threshold else rounded)


_APPLY = {Palettize: _palettize, Quantize: _quantize, Prune: _prune}


def apply(weight: Any, spec: Spec, *, num_threads: int | None = None) -> CompressedTensor:
    """Compress `weight` as `spec` says; what the functions of this module do with their arguments."""
    compress: Any = _APPLY[type(spec)]
    tensor: CompressedTensor = compress(weight, spec, num_threads)
    return tensor
