"""Compressed tensors without data, for exact sizes in `plan`.

Their parts are read-only views of a single zero, so even those of a whole model need no memory. Passed to the same
`lower` of a format as real ones, they give the size of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..compression.divisions import block_counts, group_counts
from ..specs import PALETTE_BITS, Palettize, Prune, Quantize, Spec
from ..tensors import QUANTIZED_DTYPES, CompressedTensor, PalettizedTensor, QuantizedTensor, SparseTensor, packed_size

FormType = TypeVar("FormType")


def meta_tensor(
    steps: tuple[Spec, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    lower: Callable[[CompressedTensor], FormType],
    stand_in: Callable[[int], FormType],
) -> tuple[FormType, bool]:
    """Return the form in which a weight will be stored, and whether its size is certain.

    Parameters
    ----------
    steps : tuple of spec
        What will be done to it, with its axes and groups filled in.
    shape, dtype
        The weight.
    lower : callable
        Given a compressed tensor: returns what stores it.
    stand_in : callable
        Given a number of bytes: returns a form of which nothing else is known.

    Notes
    -----
    Sizes that depend on the values are estimated: for pruned weights as if no weight were zero before and no two
    magnitudes were equal, for thresholds and ``mode="unique"`` by the largest possible size.
    """
    tensor = _joint(steps, shape, dtype) if len(steps) > 1 else _tensor(steps[0], shape, dtype)
    if tensor is None:
        return stand_in(_estimated_bytes(steps, shape, dtype)), False
    return lower(tensor), all(map(_is_certain, steps))


def _zeros(shape: tuple[int, ...] | int, dtype: Any = np.uint8) -> NDArray[Any]:
    return np.zeros(shape, dtype)  # memory that is never touched, and so takes none


def _joint(steps: tuple[Spec, ...], shape: tuple[int, ...], dtype: np.dtype[Any]) -> CompressedTensor | None:
    """A palette with a quantized table; None for other steps, of which only estimates are made."""
    if len(steps) != 2 or not isinstance(steps[0], Palettize) or not isinstance(steps[1], Quantize):
        return None
    palette, spec = _tensor(steps[0], shape, dtype), steps[1]
    assert isinstance(palette, PalettizedTensor)
    counts = palette.group_counts if spec.granularity == "per_channel" else (1,) * len(shape)
    return replace(palette, lut=_quantized(palette.lut.shape, (*counts, 1, 1), spec, dtype))


def _tensor(spec: Spec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CompressedTensor:
    size = prod(shape)
    if isinstance(spec, Palettize):
        scale = None
        if spec.enable_per_channel_scale:
            output = (spec.channel_axis or 0) % len(shape)
            scale = _zeros(tuple(length if axis == output else 1 for axis, length in enumerate(shape)), dtype)
        nbits, length = spec.nbits or PALETTE_BITS[-1], spec.cluster_dim
        lut: Any = _zeros((*group_counts(spec, shape), 2**nbits, length), dtype)
        if spec.lut_dtype is not None:
            lut = _quantized(lut.shape, (1,) * (len(shape) + 2), Quantize(dtype=spec.lut_dtype), dtype)
        axis = (spec.channel_axis or 0) % len(shape) if length > 1 else None
        return PalettizedTensor(shape, _zeros(packed_size(size // length, nbits)), lut, nbits, axis, scale)
    if isinstance(spec, Quantize):
        return _quantized(shape, block_counts(spec, shape), spec, dtype)
    nnz = _expected_nnz(spec, shape)
    mask = np.zeros(packed_size(size, 1), np.uint8)
    mask[: nnz // 8] = 0xFF
    if nnz % 8:
        mask[nnz // 8] = (1 << nnz % 8) - 1
    return SparseTensor(shape, mask, _zeros(nnz, dtype))


def _quantized(
    shape: tuple[int, ...], counts: tuple[int, ...], spec: Quantize, dtype: np.dtype[Any]
) -> QuantizedTensor:
    nbits, storage = QUANTIZED_DTYPES[spec.dtype]
    symmetric = spec.mode == "linear_symmetric" and storage is np.int8
    zero_point = None if symmetric else np.zeros(counts, storage)
    data = _zeros(packed_size(prod(shape), nbits))
    return QuantizedTensor(shape, data, _zeros(counts, dtype), zero_point, spec.dtype)


def _is_certain(spec: Spec) -> bool:
    if isinstance(spec, Prune):
        return spec.target_sparsity == 1
    return not isinstance(spec, Palettize) or spec.mode not in ("unique", "custom") or spec.nbits is not None


def _expected_nnz(spec: Prune, shape: tuple[int, ...]) -> int:
    """Weights that survive if none is zero and no two magnitudes are equal; for a threshold, all."""
    size = prod(shape)
    if spec.n_m_ratio is not None:
        n, m = spec.n_m_ratio
        length = shape[spec.axis]
        tail = length % m
        zeros = length // m * n + max(0, n - (m - tail) if tail else 0)
        return size // length * (length - zeros)
    if spec.target_sparsity == 1:
        return 0
    if not spec.target_sparsity:
        return size
    return size - 1 - math.floor((size - 1) * spec.target_sparsity)


def _estimated_bytes(steps: tuple[Spec, ...], shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Bytes of joint steps: what each of them adds, and the values as the last of them stores them."""
    count, bits, table_bytes, extra = prod(shape), 8 * dtype.itemsize, 0, 0
    for spec in steps:
        if isinstance(spec, Prune):
            extra += packed_size(count, 1)
            count = min(count, _expected_nnz(spec, shape))
        elif isinstance(spec, Palettize):
            # Of single values: with vectors there are no joint steps but a quantized table, whose size is exact.
            nbits = spec.nbits or PALETTE_BITS[-1]
            table_bytes += prod(group_counts(spec, shape)) * 2**nbits * -(-bits // 8)
            if spec.enable_per_channel_scale:
                extra += shape[(spec.channel_axis or 0) % len(shape)] * dtype.itemsize
            bits = nbits
        elif table_bytes:
            nbits, _ = QUANTIZED_DTYPES[spec.dtype]
            table_bytes = table_bytes * nbits // (8 * dtype.itemsize)
        else:
            bits, _ = QUANTIZED_DTYPES[spec.dtype]
            extra += prod(block_counts(spec, shape)) * dtype.itemsize
    return packed_size(count, bits) + table_bytes + extra
