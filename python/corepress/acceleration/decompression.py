"""Decompressed weights, replacing coremltools' palettes repeated for each weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import kernels
from ..specs import PALETTE_BITS
from ..tensors import PalettizedTensor

Function = Callable[..., Any]
_FLOATS = (np.float16, np.float32)
_TABLES = (*_FLOATS, np.int8, np.uint8)


def lut_to_dense(original: Function) -> Function:
    """Replaces ``lut_to_dense``."""

    def accelerated(indices: Any, lut: Any, vector_axis: int | None = None) -> Any:
        nbits = int(lut.shape[-2]).bit_length() - 1
        fits = (
            lut.dtype in _TABLES
            and nbits in PALETTE_BITS
            and lut.shape[-2] == 1 << nbits
            and lut.ndim == indices.ndim + 2
            and indices.size > 0
            and indices.dtype.kind in "iu"
        )
        if not fits:
            return original(indices, lut, vector_axis)
        shape, axis = list(indices.shape), None
        if lut.shape[-1] > 1:
            axis = int(vector_axis or 0) % indices.ndim
            shape[axis] *= lut.shape[-1]
        codes = np.ascontiguousarray(indices, np.uint8)
        try:
            packed = kernels.pack_bits(codes, nbits)
            table = np.ascontiguousarray(lut).view(lut.dtype.type)
            return PalettizedTensor(tuple(shape), packed, table, nbits, axis).dense()
        except (TypeError, ValueError):  # vectors of integers, or groups that do not divide
            return original(indices, lut, vector_axis)

    return accelerated


def ios16_lut_to_dense(original: Function) -> Function:
    """Replaces the iOS 16 ``constexpr_lut_to_dense.decompress``, whose indices are packed."""

    def accelerated(lut: Any, indices: Any, shape: Any) -> Any:
        nbits, full = int(lut.size).bit_length() - 1, tuple(map(int, np.asarray(shape).reshape(-1)))
        if lut.dtype not in _TABLES or nbits not in PALETTE_BITS or lut.size != 1 << nbits or not full:
            return original(lut, indices, shape)
        table = np.ascontiguousarray(lut).view(lut.dtype.type).reshape((1,) * len(full) + (lut.size, 1))
        try:
            return PalettizedTensor(full, np.ascontiguousarray(indices).view(np.uint8), table, nbits).dense()
        except ValueError:
            return original(lut, indices, shape)

    return accelerated


def sparse_to_dense(original: Function) -> Function:
    """Replaces ``sparse_to_dense``, and of the iOS 18 operation's ``decompress``."""

    def accelerated(nonzero_data: Any, mask: Any) -> Any:
        if nonzero_data.dtype not in _FLOATS or mask.dtype.kind not in "biu" or mask.ndim == 0:
            return original(nonzero_data, mask)
        return kernels.decode_sparse(nonzero_data.reshape(-1), np.not_equal(mask, 0), mask.shape)

    return accelerated


def ios16_sparse_to_dense(original: Function) -> Function:
    """Replaces the iOS 16 ``constexpr_sparse_to_dense.decompress``, whose mask is packed."""

    def accelerated(nonzero_data: Any, mask: Any, shape: Any) -> Any:
        full = tuple(map(int, np.asarray(shape).reshape(-1)))
        if nonzero_data.dtype not in _FLOATS or mask.size != (math.prod(full) + 7) // 8:
            return original(nonzero_data, mask, shape)
        return kernels.decode_sparse(nonzero_data.reshape(-1), np.ascontiguousarray(mask).view(np.uint8), full)

    return accelerated
