"""Packing of codes and masks, replacing coremltools' arrays of single bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import kernels
from ..tensors import packed_size

Function = Callable[..., Any]


def pack_elements_into_bits(original: Function) -> Function:
    """Replaces ``pack_elements_into_bits``."""

    def accelerated(elements: Any, nbits: int) -> Any:
        if isinstance(elements, np.ndarray) and elements.dtype in (np.int8, np.uint8) and 1 <= nbits <= 8:
            try:
                return kernels.pack_bits(np.ascontiguousarray(elements).view(elements.dtype.type), int(nbits))
            except ValueError:
                pass  # an element does not fit; coremltools has the error for it
        return original(elements, nbits)

    return accelerated


def restore_elements_from_packed_bits(original: Function) -> Function:
    """Replaces ``restore_elements_from_packed_bits``."""

    def accelerated(packed_values: Any, nbits: int, element_num: int, are_packed_values_signed: bool = False) -> Any:
        nbits, count = int(nbits), int(element_num)
        fits = packed_values.ndim == 1 and packed_values.dtype in (np.int8, np.uint8) and 1 <= nbits <= 8
        if not fits or packed_values.size < packed_size(count, nbits):
            return original(packed_values, nbits, element_num, are_packed_values_signed)
        data = np.ascontiguousarray(packed_values[: packed_size(count, nbits)]).view(np.uint8)
        return kernels.unpack_bits(data, nbits, count, signed=are_packed_values_signed)

    return accelerated


def ios16_sparse_params_to_ios18(original: Function) -> Function:
    """Replaces ``ios16_sparse_params_to_ios18``, which unpacks a mask."""

    def accelerated(sparse_params: Any) -> Any:
        from coremltools.converters.mil.mil import types
        from coremltools.optimize import _utils

        if not isinstance(sparse_params, _utils.SparseParamsIos16):
            return original(sparse_params)
        shape = tuple(map(int, sparse_params.shape))
        mask = kernels.unpack_bits(sparse_params.mask, 1, math.prod(shape)).reshape(shape)
        return _utils.SparseParams(nonzero_data=sparse_params.nonzero_data, mask=mask.view(types.np_uint1_dtype))

    return accelerated


def ios18_sparse_params_to_ios16(original: Function) -> Function:
    """Replaces ``ios18_sparse_params_to_ios16``, which packs it again."""

    def accelerated(sparse_params: Any) -> Any:
        from coremltools.optimize import _utils

        mask = sparse_params.mask
        if mask.dtype != np.uint8:
            return original(sparse_params)
        packed = kernels.pack_mask(np.ascontiguousarray(mask).view(np.uint8))
        return _utils.SparseParamsIos16(nonzero_data=sparse_params.nonzero_data, mask=packed, shape=mask.shape)

    return accelerated
