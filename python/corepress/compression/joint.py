"""Joint compression: apply a verb to an already compressed tensor.

A sparse tensor's values, a palettized tensor's palettes (lookup tables, LUTs) and a quantized tensor's codes can be
compressed again, and palettized and quantized tensors can be pruned. The functions here know how forms nest; callers
pass in the functions that compress plain arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._core import count_nonfinite, encode_sparse, gather_codes, unpack_bits
from .._core import palettize as palettize_native
from ..arrays import group_layout, not_finite_count
from ..specs import LUT_DTYPES, Palettize, Quantize
from ..tensors import (
    QUANTIZED_DTYPES,
    CompressedTensor,
    PalettizedTensor,
    QuantizedTensor,
    SparseTensor,
    Support,
    ones_of,
    pack_codes,
    packed_size,
)
from ..tensors import base as tensor_base
from ..tensors.base import decoded_pieces, pieces
from .piecewise import GroupedValues, GroupPlaces, chosen_bits, joined, store_codes
from .quotients import Quotients

Array: TypeAlias = NDArray[Any]
# Tables and codes of several arrays, each divided into the groups of the spec.
FitPalettes: TypeAlias = Callable[[list[Array], Palettize], list[PalettizedTensor]]
FitScales: TypeAlias = Callable[[Array, tuple[int, ...]], QuantizedTensor]

_INTEGER_TABLES = ("int8", "uint8")
_MOST_COUNTED = 1 << 12  # groups whose codes are counted instead of copied
_FORMS = (
    "a SparseTensor can be palettized or quantized, the table of a PalettizedTensor quantized, the int8 or uint8 codes "
    "of a QuantizedTensor palettized, and each of these pruned"
)


def _refusal(verb: str, tensor: CompressedTensor) -> TypeError:
    return TypeError(f"{verb}: {tensor!r} cannot be compressed further in this way; {_FORMS}")


@dataclass(frozen=True)
class Fits:
    """How values are palettized.

    Attributes
    ----------
    arrays : callable
        Palettizes arrays, each divided into the groups of the spec.
    quotients : callable
        Palettizes quotients with one table, a piece at a time; None if it must have all of them in memory.
    counted : callable or None
        The table of some distinct values, ascending, and how often each is met; None for tables that do not depend on
        this.
    """

    arrays: FitPalettes
    quotients: Callable[[Quotients, Palettize], PalettizedTensor | None]
    counted: Callable[[Array, Array, Palettize], Array] | None


def palettize(
    tensor: CompressedTensor, spec: Palettize, groups: tuple[int, ...], fits: Fits, num_threads: int | None
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
    fits : Fits
        What palettizes values.
    num_threads : int or None
        Threads to use.
    """
    if isinstance(tensor, QuantizedTensor):
        return _palettize_codes(tensor, spec, groups, fits)
    if not isinstance(tensor, SparseTensor):
        raise _refusal("palettize", tensor)
    support = Support(tensor.shape, tensor.mask)
    if isinstance(tensor.values, QuantizedTensor):
        return replace(tensor, values=_palettize_codes(tensor.values, spec, groups, fits))
    if not isinstance(tensor.values, np.ndarray):
        raise _refusal("palettize", tensor)
    if not spec.enable_per_channel_scale:
        return replace(tensor, values=_palettize_values(tensor.values, support, spec, groups, fits.arrays))
    nonfinite = count_nonfinite(tensor.values, num_threads)
    if nonfinite:
        raise not_finite_count("palettize", nonfinite, tensor.shape)
    quotients = Quotients(tensor, (spec.channel_axis or 0) % len(tensor.shape), num_threads)
    unscaled = replace(spec, enable_per_channel_scale=False)
    is_large = support.count > tensor_base.PIECE and prod(groups) == 1
    values = fits.quotients(quotients, unscaled) if is_large else None
    if values is None:
        values = _palettize_values(quotients.whole(), support, unscaled, groups, fits.arrays)
    lut = values.table.reshape(*groups, -1, 1)
    return replace(tensor, values=replace(values, lut=lut, scale=quotients.scale, support=support))


def _palettize_values(
    values: Array, support: Support, spec: Palettize, groups: tuple[int, ...], fit: FitPalettes
) -> PalettizedTensor:
    """Palettize the values of a sparse tensor, each group of its elements separately; zeros do not count."""
    layout = group_layout(support.shape, groups)
    whole = replace(spec, granularity="per_tensor")
    if layout[1] == 1 and values.size:
        (fitted,) = fit([values], whole)
        return replace(fitted, lut=fitted.table.reshape(*groups, -1, 1), support=support)
    grouped = GroupedValues(values, layout, support.mask)
    nbits = spec.nbits
    if nbits is None:
        widths = (each.nbits for batch in grouped.batches() for each in fit(grouped.take(*batch), whole))
        nbits = max(widths, default=1)
        whole = replace(whole, nbits=nbits)
    lut, indices = np.zeros((layout[1], 2**nbits), values.dtype), np.zeros(packed_size(values.size, nbits), np.uint8)
    for first, last in grouped.batches():
        fitted_groups = fit(grouped.take(first, last), whole)
        tables = np.concatenate([tensor.table.reshape(1, -1) for tensor in fitted_groups])
        lut = lut.astype(tables.dtype, copy=False)
        lut[first + np.flatnonzero(grouped.sizes[first:last])] = tables
        grouped.store(first, last, np.concatenate([each.codes() for each in fitted_groups]), indices, nbits)
    return PalettizedTensor(values.shape, indices, lut.reshape(*groups, -1, 1), nbits, support=support)


def _palettize_codes(tensor: QuantizedTensor, spec: Palettize, groups: tuple[int, ...], fits: Fits) -> QuantizedTensor:
    """Palettize 8-bit codes: palettes of integers, with the nearest entry for each code."""
    if not isinstance(tensor.data, np.ndarray):
        raise _refusal("palettize", tensor)
    if tensor.quantized_dtype not in _INTEGER_TABLES:
        raise TypeError(f"palettize: tables of codes are int8 or uint8, not {tensor.quantized_dtype}")
    if spec.enable_per_channel_scale:
        raise ValueError("palettize: enable_per_channel_scale is for weights, not for the codes of a QuantizedTensor")
    dtype = QUANTIZED_DTYPES[tensor.quantized_dtype][1]
    if tensor.size > tensor_base.PIECE and spec.lut_function is None and prod(groups) <= _MOST_COUNTED:
        return replace(tensor, data=_palettize_counted(tensor, spec, groups, fits))

    def fit_integers(arrays: list[Array], spec: Palettize) -> list[PalettizedTensor]:
        fitted = fits.arrays(arrays, spec)
        return [with_integers(array, each, dtype, spec.mode) for array, each in zip(arrays, fitted, strict=True)]

    codes = tensor.codes().astype(np.float16)  # which holds all codes exactly
    if tensor.support is None:
        (data,) = fit_integers([codes], spec)
    else:
        data = _palettize_values(codes, tensor.support, spec, groups, fit_integers)
        data = replace(data, lut=data.table.astype(dtype, copy=False))  # where no value is left to fit tables to
    return replace(tensor, data=data)


def require_scales_of_tables(where: str, spec: Quantize) -> None:
    """ValueError, whose message begins with `where`, unless a spec can quantize the tables of a palettized tensor."""
    if spec.granularity == "per_block":
        raise ValueError(f"{where}: a lut has one scale per table, or per_tensor one for all; not per_block")


def _palettize_counted(
    tensor: QuantizedTensor, spec: Palettize, groups: tuple[int, ...], fits: Fits
) -> PalettizedTensor:
    """Palettize codes by how often each occurs in each group."""
    codes = tensor.codes().reshape(-1)
    mask = None if tensor.support is None else tensor.support.mask
    places = GroupPlaces(group_layout(tensor.full_shape, groups), mask)
    values = np.arange(256, dtype=np.uint8).view(codes.dtype).astype(np.float16)  # of each byte
    counts = np.zeros((places.count, values.size))
    for begin, numbers in places.pieces():
        counts += np.bincount(_pairs(numbers, codes, begin), minlength=counts.size).reshape(counts.shape)
    ascending = np.argsort(values)
    filled = np.flatnonzero(counts.any(1))
    met = [ascending[counts[group, ascending] > 0] for group in filled]
    distinct = [(values[each], counts[group, each]) for group, each in zip(filled, met, strict=True)]
    tables = _tables_of_codes(distinct, spec, fits)
    luts = np.zeros((places.count, tables.shape[1]), values.dtype)
    luts[filled] = np.rint(tables)
    nbits = int(tables.shape[1]).bit_length() - 1
    every, layout = np.tile(values, places.count), (1, places.count, values.size)
    (encoded,) = palettize_native([every], [layout], nbits, "kmeans", [luts], [None])
    assert encoded is not None, "codes are finite"
    index_of, indices = np.empty(every.size, np.uint8), np.zeros(packed_size(codes.size, nbits), np.uint8)
    unpack_bits(encoded[1], nbits, False, False, index_of.size, index_of)
    for begin, numbers in places.pieces():
        store_codes(indices, nbits, begin, index_of[_pairs(numbers, codes, begin)])
    lut = luts.astype(codes.dtype).reshape(*groups, -1, 1)
    return PalettizedTensor(tensor.shape, indices, lut, nbits, support=tensor.support)


def _tables_of_codes(distinct: list[tuple[Array, Array]], spec: Palettize, fits: Fits) -> Array:
    """A table for each group, one a row, from its distinct values and how often each is met."""
    if not distinct:
        return np.zeros((0, 2 ** (spec.nbits or 1)))
    if fits.counted is not None:
        return np.array([fits.counted(*each, spec) for each in distinct])
    whole, values = replace(spec, granularity="per_tensor"), [each for each, _ in distinct]
    fitted = fits.arrays(values, whole)
    nbits = max(each.nbits for each in fitted)
    if any(each.nbits != nbits for each in fitted):
        fitted = fits.arrays(values, replace(whole, nbits=nbits))
    if spec.mode == "uniform":
        return np.array([_even_integers(each[0], each[-1], 2**nbits) for each in values])
    return np.array([each.table.reshape(-1) for each in fitted])


def _pairs(groups: Array, codes: Array, begin: int) -> Array:
    """A number for each pair of a group and a byte."""
    return groups.astype(np.int64) * 256 + codes[begin : begin + groups.size].view(np.uint8)


def _even_integers(lowest: Any, highest: Any, entries: int) -> Array:
    """Even steps between ends, as coremltools computes them: in double precision, truncated towards zero."""
    lowest, highest = np.float64(lowest), np.float64(highest)
    table: Array = np.trunc(np.arange(entries) * ((highest - lowest) / (entries - 1)) + lowest)
    return table


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
        table = _even_integers(lowest, highest, 2**fitted.nbits).astype(codes.dtype).reshape(fitted.table.shape)
    else:
        table = np.rint(fitted.table)
    (encoded,) = palettize_native([codes], [layout], fitted.nbits, "kmeans", [table], [None], False)
    assert encoded is not None, "codes are finite"
    return replace(fitted, indices=encoded[1], lut=table.astype(dtype))


def quantize_values(
    tensor: SparseTensor, spec: Quantize, counts: tuple[int, ...], fit: FitScales, num_threads: int | None
) -> SparseTensor:
    """Quantize the values of a sparse tensor, finite ones.

    Zeros change no scale: symmetric ranges depend on the largest magnitude, others include zero anyway, and a zero is
    exact whatever the scale.

    Parameters
    ----------
    tensor : SparseTensor
        With plain values.
    spec : Quantize
        How.
    counts : tuple of int
        Number of blocks along each axis.
    fit : callable
        Quantizes an array, divided into the given number of blocks along each axis.
    num_threads : int or None
        Threads to use.
    """
    support = Support(tensor.shape, tensor.mask)
    nbits = QUANTIZED_DTYPES[spec.dtype][0]
    blocks = [length // count for length, count in zip(tensor.shape, counts, strict=True)]
    scales: list[Array] = []
    offsets: list[Array] = []

    def codes_of(array: Array, of_array: tuple[int, ...]) -> NDArray[np.uint8]:
        quantized = fit(array, of_array)
        scales.append(quantized.scale.reshape(-1))
        if quantized.zero_point is not None:
            offsets.append(quantized.zero_point.reshape(-1))
        assert isinstance(quantized.data, np.ndarray)
        return quantized.data

    def parts() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for (part,) in pieces((tensor,), together=blocks):
            assert isinstance(part, SparseTensor)
            of_part = counts
            if part.shape != tensor.shape:
                of_part = tuple(length // block for length, block in zip(part.shape, blocks, strict=True))
            codes = codes_of(part.dense(num_threads=num_threads), of_part)
            yield gather_codes(codes, nbits, part.mask, part.size, num_threads), part.nnz

    if spec.scale_search is None and support.count and prod(counts) == 1:
        assert isinstance(tensor.values, np.ndarray)
        data = codes_of(tensor.values, (1,))
    elif spec.scale_search is None and (led := _led_parts(tensor, counts, fit, num_threads)) is not None:
        ends, codes = led
        codes_of(ends, counts)
        data = joined(support.count, nbits, codes)
    else:
        data = joined(support.count, nbits, parts())
    scale = np.concatenate(scales).reshape(counts)
    zero_point = np.concatenate(offsets).reshape(counts) if offsets else None
    decoded = None if spec.scale_dtype is None else tensor.dtype
    values = QuantizedTensor((support.count,), data, scale, zero_point, spec.dtype, support, spec.scale_dtype, decoded)
    return replace(tensor, values=values)


def _led_parts(
    tensor: SparseTensor, counts: tuple[int, ...], fit: FitScales, num_threads: int | None
) -> tuple[Array, Iterator[tuple[NDArray[np.uint8], int]]] | None:
    """Where blocks reach through the axis that pieces divide: the ends of its entries, and the codes of each piece.

    Ends decide scales, so a piece behind the ends of all has the scales of all. None where a scale is subnormal, which
    the errors of all decide, and where no block is divided.
    """
    cut = next((axis for axis, length in enumerate(tensor.shape) if length > 1), None)
    if cut is None or counts[cut] != 1 or tensor.size <= tensor_base.PIECE:
        return None
    together = [1 if axis == cut else length for axis, length in enumerate(tensor.shape)]
    lowest = highest = np.zeros((), tensor.dtype)
    for (array,) in decoded_pieces((tensor,), num_threads, together):
        lowest = np.minimum(lowest, array.min(cut, keepdims=True))
        highest = np.maximum(highest, array.max(cut, keepdims=True))
    ends = np.concatenate([lowest, highest], cut)
    if (fit(ends, counts).scale < (2.0**-14 if tensor.dtype == np.float16 else 2.0**-126)).any():
        return None

    def parts() -> Iterator[tuple[NDArray[np.uint8], int]]:
        for (part,) in pieces((tensor,), together=together):
            assert isinstance(part, SparseTensor)
            quantized = fit(np.concatenate([ends, part.dense(num_threads=num_threads)], cut), counts)
            codes = quantized.codes()[(*(slice(None),) * cut, slice(2, None))].reshape(-1)
            kept = codes[ones_of(part.mask, part.size)]
            yield pack_codes(kept, quantized.quantized_dtype), kept.size

    return ends, parts()


def quantize_table(tensor: CompressedTensor, spec: Quantize, fit: FitScales) -> CompressedTensor:
    """Quantize the tables of a palettized tensor, or of a sparse one's values; parameters as for `quantize_values`."""
    if isinstance(tensor, SparseTensor) and isinstance(tensor.values, PalettizedTensor):
        values: Any = quantize_table(tensor.values, spec, fit)
        return replace(tensor, values=values)
    if (
        not isinstance(tensor, PalettizedTensor)
        or not isinstance(tensor.lut, np.ndarray)
        or tensor.lut.dtype.kind in "iu"
    ):
        raise _refusal("quantize", tensor)
    if spec.dtype not in LUT_DTYPES:
        raise ValueError(f"quantize: a lut becomes {', '.join(LUT_DTYPES)}, not {spec.dtype}")
    require_scales_of_tables("quantize", spec)
    rank = len(tensor.full_shape)
    counts = tensor.group_counts if spec.granularity == "per_channel" else (1,) * rank
    return replace(tensor, lut=fit(tensor.lut, (*counts, 1, 1)))


def prune(tensor: CompressedTensor, mask: NDArray[np.uint8], num_threads: int | None) -> SparseTensor:
    """Keep the values at a mask's ones, of codes the codes.

    Parameters
    ----------
    tensor : CompressedTensor
        What to prune.
    mask : numpy.ndarray of uint8
        Of what is zero in the tensor it has no ones.
    num_threads : int or None
        Threads to use.
    """
    support, kept = Support(tensor.shape, mask), mask
    values: Any = tensor
    if isinstance(tensor, SparseTensor):
        values, kept = tensor.values, chosen_bits(mask, tensor.mask, tensor.size)
    if isinstance(values, np.ndarray):
        kept_values = np.empty(support.count, values.dtype)
        encode_sparse(values, kept, kept_values, num_threads)
        return SparseTensor(tensor.shape, mask, kept_values)
    return SparseTensor(tensor.shape, mask, _gather(values, support, kept, num_threads))


def _gather(
    tensor: PalettizedTensor | QuantizedTensor, support: Support, kept: NDArray[np.uint8], num_threads: int | None
) -> PalettizedTensor | QuantizedTensor:
    """Keep the codes whose bit of `kept` is 1; `support` has their positions."""
    if isinstance(tensor, PalettizedTensor):
        return _gather_indices(tensor, support, kept, num_threads)
    data: Any
    if isinstance(tensor.data, PalettizedTensor):
        data = _gather_indices(tensor.data, support, kept, num_threads)
    else:
        data = gather_codes(tensor.data, tensor.nbits, kept, tensor.size, num_threads)
    return replace(tensor, shape=(support.count,), data=data, support=support)


def _gather_indices(
    tensor: PalettizedTensor, support: Support, kept: NDArray[np.uint8], num_threads: int | None
) -> PalettizedTensor:
    if tensor.lut.shape[-1] > 1:
        raise ValueError("prune: a palette of vectors cannot be pruned, since a mask has a bit per index")
    indices = gather_codes(tensor.indices, tensor.nbits, kept, tensor.size, num_threads)
    return replace(tensor, shape=(support.count,), indices=indices, support=support)
