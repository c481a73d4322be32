"""Affine quantization, replacing coremltools' arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compression import quantize
from ..errors import NonFiniteError
from ..tensors import CORE_ML_DTYPES, QuantizedTensor

Function = Callable[..., Any]
_MODES = {"LINEAR_SYMMETRIC": "linear_symmetric", "LINEAR": "linear"}


def compute_qparams_by_dtype(original: Function) -> Function:
    """Replaces ``compute_qparams_by_dtype``: codes, scales, and zero points if there are any."""

    def accelerated(weight: Any, dtype: Any, quantization_mode: str, block_sizes: Any) -> Any:
        from coremltools.converters.mil.mil import types

        name = types.builtin_to_string(dtype)
        fits = (
            isinstance(weight, np.ndarray)
            and weight.dtype in (np.float16, np.float32)
            and name in CORE_ML_DTYPES
            and quantization_mode in _MODES
            and 0 < len(block_sizes) == weight.ndim
            and all(size <= 0 or length % size == 0 for length, size in zip(weight.shape, block_sizes, strict=True))
            and weight.size > 0
        )
        if not fits:
            return original(weight, dtype, quantization_mode, block_sizes)
        sizes = tuple(max(0, int(size)) for size in block_sizes)
        try:
            tensor = quantize(
                weight, dtype=name, mode=_MODES[quantization_mode], granularity="per_block", block_size=sizes
            )
        except NonFiniteError:
            return original(weight, dtype, quantization_mode, block_sizes)
        stored = types.nptype_from_builtin(dtype)
        zero_point = None if tensor.zero_point is None else tensor.zero_point.view(stored)
        return tensor.codes().view(stored), tensor.scale, zero_point

    return accelerated


def blockwise_shift_scale(original: Function) -> Function:
    """Replaces ``constexpr_blockwise_shift_scale.decompress``."""

    def accelerated(data: Any, scale: Any, offset: Any) -> Any:
        found = _dequantized(data, scale, offset)
        return original(data, scale, offset) if found is None else found

    return accelerated


def dequantize_by_scale_and_zp(original: Function) -> Function:
    """Replaces ``dequantize_by_scale_and_zp``, which the iOS 16 operation uses."""

    def accelerated(quantized_data: Any, scale: Any, zero_point: Any, axis: int | None = None) -> Any:
        from coremltools.optimize import _utils

        promoted = [
            None if each is None else _utils.promote_rank_to_same_as_data(each, quantized_data, axis)
            for each in (scale, zero_point)
        ]
        found = _dequantized(quantized_data, *promoted)
        return original(quantized_data, scale, zero_point, axis) if found is None else found

    return accelerated


def _dequantized(data: Any, scale: Any, offset: Any) -> Any:
    """The weights; None for input that the kernels do not support."""
    fits = (
        isinstance(data, np.ndarray)
        and isinstance(scale, np.ndarray)
        and data.dtype in (np.int8, np.uint8)
        and scale.dtype in (np.float16, np.float32)
        and data.ndim == scale.ndim > 0
        and data.size > 0
        and all(blocks and length % blocks == 0 for length, blocks in zip(data.shape, scale.shape, strict=True))
    )
    if not fits or (offset is not None and (offset.shape != scale.shape or offset.dtype != data.dtype)):
        return None
    name = np.dtype(data.dtype.type).name
    codes = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    offsets = None if offset is None else np.ascontiguousarray(offset).view(data.dtype.type)
    return QuantizedTensor(data.shape, codes, np.ascontiguousarray(scale), offsets, name).dense()
