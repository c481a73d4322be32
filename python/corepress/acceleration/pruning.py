"""Pruning, replacing coremltools' percentiles and sorting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compression import prune
from ..errors import NonFiniteError, TooFewZerosError

Function = Callable[..., Any]


def produce_sparse_param(original: Function) -> Function:
    """Replaces ``_produce_sparse_param``, which stores what is not zero."""

    def accelerated(val: Any) -> Any:
        found = _sparse_params(val, {"threshold": 0.0}) if is_for_kernels(val) else None
        return original(val) if found is None else found

    return accelerated


def compress_by_threshold(original: Function) -> Function:
    """Replaces ``compress_by_threshold``."""

    def accelerated(val: Any, threshold: float, minimum_sparsity_percentile: float) -> Any:
        options = {"threshold": threshold, "minimum_sparsity_percentile": minimum_sparsity_percentile}
        try:
            found = _sparse_params(val, options) if is_for_kernels(val) else None
        except TooFewZerosError as failure:
            from coremltools import _logger as logger

            logger.warning(f"{failure}. Skipped.")
            return None
        return original(val, threshold, minimum_sparsity_percentile) if found is None else found

    return accelerated


def compress_by_magnitude(original: Function) -> Function:
    """Replaces ``compress_by_magnitude``, of single weights or of blocks."""

    def accelerated(val: Any, target_sparsity: float, block_size: int | None = None, dim: int | None = None) -> Any:
        structured = block_size is not None
        found = None
        if is_for_kernels(val) and (not structured or is_divided(val, block_size, dim)):
            options = {"target_sparsity": target_sparsity, "block_size": block_size}
            found = _sparse_params(val, options | ({"dim": dim} if structured else {}))
        return original(val, target_sparsity, block_size, dim) if found is None else found

    return accelerated


def compress_by_nm_sparsity(original: Function) -> Function:
    """Replaces ``compress_by_nm_sparsity``."""

    def accelerated(val: Any, n_m_ratio: tuple[int, int], dim: int) -> Any:
        found = None
        if is_for_kernels(val) and is_divided(val, n_m_ratio[1], dim):
            found = _sparse_params(val, {"n_m_ratio": tuple(n_m_ratio), "dim": dim})
        return original(val, n_m_ratio, dim) if found is None else found

    return accelerated


def is_for_kernels(val: Any) -> bool:
    return isinstance(val, np.ndarray) and val.dtype in (np.float16, np.float32) and val.size > 0


def is_divided(val: Any, size: int | None, dim: int | None) -> bool:
    """Whether coremltools prunes groups of this size; it warns about others."""
    return dim in (0, 1) and val.ndim > 1 and size is not None and 1 < 2 * size <= val.shape[dim]


def _sparse_params(val: Any, options: dict[str, Any]) -> Any:
    from coremltools.optimize import _utils

    try:
        tensor = prune(val, **options)
    except NonFiniteError:
        return None
    return _utils.SparseParamsIos16(nonzero_data=tensor.values, mask=tensor.mask, shape=val.shape)
