"""Compressing what is compressed already: how the joint forms come from the verbs for arrays.

A sparse tensor's values, a palettized tensor's tables and a quantized tensor's codes can be compressed again, and
palettized and quantized tensors pruned. The functions here know how forms nest; how arrays are compressed they are
told by their callers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import axis_layout, group_layout
from .specs import Palettize, Quantize
from .tensors import (
    QUANTIZED_DTYPES,
    CompressedTensor,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
    Support,
    ones_of,
    pack_ones,
)

Array: TypeAlias = NDArray[Any]
# Tables and codes of several arrays, each divided into the groups of the spec.
FitPalettes: TypeAlias = Callable[[list[Array], Palettize], list[PalettizedTensor]]
FitScales: TypeAlias = Callable[[Array, Quantize], QuantizedTensor]
FitScalesOfBlocks: TypeAlias = Callable[[Array, Quantize, tuple[int, ...]], QuantizedTensor]
FitMask: TypeAlias = Callable[[Array], SparseTensor]

_INTEGER_TABLES = ("int8", "uint8")
_FORMS = (
    "a SparseTensor can be palettized or quantized, the table of a PalettizedTensor quantized, the int8 or uint8 codes "
    "of a QuantizedTensor palettized, and each of these pruned"
)


def _refusal(verb: str, tensor: CompressedTensor) -> TypeError:
    return TypeError(f"{verb}: {tensor!r} cannot be compressed further so; {_FORMS}")


def palettize(
    tensor: CompressedTensor, spec: Palettize, groups: tuple[int, ...], fit: FitPalettes, num_threads: int | None
) -> CompressedTensor:
    """Palettize a sparse tensor's values or a quantized tensor's codes.

    Parameters
    ----------
    tensor : CompressedTensor
        What to compress further.
    spec : Palettize
        How.
    groups : tuple of int
        Number of groups along each axis.
    fit : callable
        Palettizes arrays.
    num_threads : int or None
        Threads to use.
    """
    if isinstance(tensor, QuantizedTensor):
        return _palettize_codes(tensor, spec, groups, fit)
    if not isinstance(tensor, SparseTensor):
        raise _refusal("palettize", tensor)
    support = Support(tensor.shape, tensor.mask)
    if isinstance(tensor.values, QuantizedTensor):
        return replace(tensor, values=_palettize_codes(tensor.values, spec, groups, fit))
    if not isinstance(tensor.values, np.ndarray):
        raise _refusal("palettize", tensor)
    if not spec.enable_per_channel_scale:
        return replace(tensor, values=_palettize_values(tensor.values, support, spec, groups, fit))
    scale, quotients = normalize(tensor.dense(num_threads=num_threads), spec, num_threads)
    survivors = np.empty(support.count, quotients.dtype)
    _core.encode_sparse(quotients, tensor.mask, survivors, num_threads)
    unscaled = replace(spec, enable_per_channel_scale=False)
    return replace(tensor, values=replace(_palettize_values(survivors, support, unscaled, groups, fit), scale=scale))


def normalize(array: Array, spec: Palettize, num_threads: int | None) -> tuple[Array, Array]:
    """Divide each output channel by its largest magnitude.

    Returns
    -------
    scale : numpy.ndarray
        The magnitudes, 1 for channels that are all zero; in the array's dtype, with 1 entry along the other axes.
    quotients : numpy.ndarray
        In the array's dtype and shape, rounded once.
    """
    axis = (spec.channel_axis or 0) % array.ndim
    scale, quotients = _core.normalize(array, axis_layout(array.shape, axis), num_threads)
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    return scale.reshape(shape), quotients.reshape(array.shape)


def _palettize_values(
    values: Array, support: Support, spec: Palettize, groups: tuple[int, ...], fit: FitPalettes
) -> PalettizedTensor:
    """Palettize the values of a sparse tensor, each group of its elements by itself: zeros do not count."""
    outer, group_count, run = group_layout(support.shape, groups)
    order = None
    sizes = np.array([values.size])
    if group_count > 1:
        ones = ones_of(support.mask, outer * group_count * run).reshape(outer, group_count, run)
        counts = ones.sum(axis=2, dtype=np.int64)
        sizes = counts.sum(axis=0)
        if outer > 1:
            numbers = np.arange(group_count, dtype=np.min_scalar_type(group_count))  # short ones are sorted in no time
            group_of = np.repeat(np.tile(numbers, outer), counts.reshape(-1))
            order = np.argsort(group_of, kind="stable")
    parts = np.split(values if order is None else values[order], np.cumsum(sizes)[:-1])
    filled = [part for part in parts if part.size]
    whole = replace(spec, granularity="per_tensor")
    fitted = fit(filled, whole) if filled else []
    nbits = max((tensor.nbits for tensor in fitted), default=spec.nbits or 1)
    if any(tensor.nbits != nbits for tensor in fitted):
        fitted = fit(filled, replace(whole, nbits=nbits))
    lut = np.zeros((group_count, 2**nbits), fitted[0].lut.dtype if fitted else values.dtype)
    for group, tensor in zip(np.flatnonzero(sizes), fitted, strict=True):
        lut[group] = tensor.table.reshape(-1)
    if len(fitted) == 1:
        indices = fitted[0].indices
    else:
        codes = np.concatenate([tensor.codes() for tensor in fitted] or [np.empty(0, np.uint8)])
        if order is not None:
            sorted_codes, codes = codes, np.empty_like(codes)
            codes[order] = sorted_codes
        indices = np.empty((codes.size * nbits + 7) // 8, np.uint8)
        _core.pack_bits(codes, nbits, False, False, indices)
    return PalettizedTensor(values.shape, indices, lut.reshape(*groups, -1, 1), nbits, support=support)


def _palettize_codes(
    tensor: QuantizedTensor, spec: Palettize, groups: tuple[int, ...], fit: FitPalettes
) -> QuantizedTensor:
    """Palettize 8-bit codes: tables of integers, of which each code takes the nearest."""
    if not isinstance(tensor.data, np.ndarray):
        raise _refusal("palettize", tensor)
    if tensor.quantized_dtype not in _INTEGER_TABLES:
        raise TypeError(f"palettize: tables of codes are int8 or uint8, not {tensor.quantized_dtype}")
    if spec.enable_per_channel_scale:
        raise ValueError("palettize: enable_per_channel_scale is for weights, not for the codes of a QuantizedTensor")
    dtype = QUANTIZED_DTYPES[tensor.quantized_dtype][1]

    def fit_integers(arrays: list[Array], spec: Palettize) -> list[PalettizedTensor]:
        fitted = fit(arrays, spec)
        return [with_integers(array, each, dtype, spec.mode) for array, each in zip(arrays, fitted, strict=True)]

    halves = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float16)  # which hold all codes exactly
    codes = np.take(halves, tensor.codes().view(np.uint8))
    if tensor.support is None:
        (data,) = fit_integers([codes], spec)
    else:
        data = _palettize_values(codes, tensor.support, spec, groups, fit_integers)
        data = replace(data, lut=data.table.astype(dtype, copy=False))  # where no value is left to fit tables to
    return replace(tensor, data=data)


def with_integers(codes: Array, fitted: PalettizedTensor, dtype: type[Any], mode: str = "kmeans") -> PalettizedTensor:
    """Give palettized codes tables of integers, and each code the nearest entry.

    Parameters
    ----------
    codes : numpy.ndarray of float16
        Whole numbers that float16 holds exactly.
    fitted : PalettizedTensor
        What `palettize` makes of them.
    dtype : type of int8 or uint8
        Of the tables.
    mode : str
        How the tables were found. Even steps are found again, as coremltools does it: in double, and cut off towards
        zero. Others are rounded.
    """
    layout = group_layout(fitted.shape, fitted.group_counts)
    if mode == "uniform":
        groups = codes.reshape(layout).astype(np.float64)
        lowest, highest = groups.min(axis=(0, 2))[:, None], groups.max(axis=(0, 2))[:, None]
        entries = 2**fitted.nbits
        table = np.trunc(np.arange(entries) * ((highest - lowest) / (entries - 1)) + lowest)
        table = table.astype(codes.dtype).reshape(fitted.table.shape)
    else:
        table = np.rint(fitted.table)
    (encoded,) = _core.palettize([codes], [layout], fitted.nbits, "kmeans", [table], [None], False)
    assert encoded is not None, "codes are finite"
    return replace(fitted, indices=encoded[1], lut=table.astype(dtype))


def quantize(
    tensor: CompressedTensor,
    spec: Quantize,
    fit: FitScales,
    fit_blocks: FitScalesOfBlocks,
    num_threads: int | None,
) -> CompressedTensor:
    """Quantize a sparse tensor's values or a palettized tensor's tables.

    Parameters
    ----------
    tensor : CompressedTensor
        What to compress further.
    spec : Quantize
        How.
    fit : callable
        Quantizes an array.
    fit_blocks : callable
        The same with the number of blocks along each axis given.
    num_threads : int or None
        Threads to use.
    """
    if isinstance(tensor, PalettizedTensor):
        return _quantize_table(tensor, spec, fit_blocks)
    if not isinstance(tensor, SparseTensor):
        raise _refusal("quantize", tensor)
    if isinstance(tensor.values, PalettizedTensor):
        return replace(tensor, values=_quantize_table(tensor.values, spec, fit_blocks))
    if not isinstance(tensor.values, np.ndarray):
        raise _refusal("quantize", tensor)
    # Zeros change no scale: symmetric ranges depend on the largest magnitude, others include zero anyway, and a zero is
    # exact whatever the scale.
    dense = fit(tensor.dense(num_threads=num_threads), spec)
    return replace(tensor, values=_gather(dense, Support(tensor.shape, tensor.mask), tensor.mask, num_threads))


def _quantize_table(tensor: PalettizedTensor, spec: Quantize, fit_blocks: FitScalesOfBlocks) -> PalettizedTensor:
    if not isinstance(tensor.lut, np.ndarray) or tensor.lut.dtype.kind in "iu":
        raise _refusal("quantize", tensor)
    if spec.dtype not in _INTEGER_TABLES:
        raise ValueError(f"quantize: a lut becomes int8 or uint8, not {spec.dtype}")
    if spec.granularity == "per_block":
        raise ValueError("quantize: a lut has one scale per table, or per_tensor one for all; not per_block")
    rank = len(tensor.full_shape)
    counts = tensor.group_counts if spec.granularity == "per_channel" else (1,) * rank
    return replace(tensor, lut=fit_blocks(tensor.lut, spec, (*counts, 1, 1)))


def prune(tensor: CompressedTensor, fit: FitMask, num_threads: int | None) -> SparseTensor:
    """Prune by the decompressed values; of what is left codes are kept as they are.

    Parameters
    ----------
    tensor : CompressedTensor
        What to prune.
    fit : callable
        Prunes an array.
    num_threads : int or None
        Threads to use.
    """
    pruned = fit(tensor.dense(num_threads=num_threads))
    values, kept = tensor, pruned.mask
    if isinstance(tensor, SparseTensor):
        if isinstance(tensor.values, np.ndarray):
            return pruned
        values = tensor.values
        kept = pack_ones(ones_of(pruned.mask, tensor.size)[ones_of(tensor.mask, tensor.size)])
    assert isinstance(values, PalettizedTensor | QuantizedTensor)
    return replace(pruned, values=_gather(values, Support(pruned.shape, pruned.mask), kept, num_threads))


def _gather(
    tensor: PalettizedTensor | QuantizedTensor, support: Support, kept: NDArray[np.uint8], num_threads: int | None
) -> PalettizedTensor | QuantizedTensor:
    """Keep the codes whose bit of `kept` is 1; they stand at `support`."""
    if isinstance(tensor, PalettizedTensor):
        return _gather_indices(tensor, support, kept, num_threads)
    data: Any
    if isinstance(tensor.data, PalettizedTensor):
        data = _gather_indices(tensor.data, support, kept, num_threads)
    else:
        data = _core.gather_codes(tensor.data, tensor.nbits, kept, tensor.size, num_threads)
    return replace(tensor, shape=(support.count,), data=data, support=support)


def _gather_indices(
    tensor: PalettizedTensor, support: Support, kept: NDArray[np.uint8], num_threads: int | None
) -> PalettizedTensor:
    if tensor.lut.shape[-1] > 1:
        raise ValueError("prune: a palette of vectors cannot be pruned, since a mask has a bit per index")
    indices = _core.gather_codes(tensor.indices, tensor.nbits, kept, tensor.size, num_threads)
    return replace(tensor, shape=(support.count,), indices=indices, support=support)
