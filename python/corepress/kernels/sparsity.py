"""Masks of pruned weights, and the values where they are 1."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import count_bits, prune
from .._core import decode_sparse as decode_sparse_native
from .._core import encode_sparse as encode_sparse_native
from ..arrays import as_finite_weight, as_threads, as_weight, checked_axis, contiguous, not_finite
from ..compression.pruning import n_m_keep, threshold_rule
from ..intake import MASKS, as_array, as_output, as_shape, as_whole
from ..specs import checked_n_m_ratio, checked_threshold
from ..tensors import packed_size
from .packing import pack_mask, unpack_mask

__all__ = ["decode_sparse", "encode_sparse", "magnitude_mask", "n_m_mask"]


def encode_sparse(
    weight: Any, mask: Any, *, out: NDArray[Any] | None = None, num_threads: int | None = None
) -> NDArray[Any]:
    """Return the weights where `mask` is true, in row-major order.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is rounded to float32.
    mask : array_like
        bool in the weight's shape, or the packed bytes of `pack_mask`.
    out : numpy.ndarray, optional
        1-D array of the weight's dtype, with as many elements as the mask has ones, to write to.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray
        The weights, 1-D: `out`, or a new array.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        If the mask or `out` does not fit.
    """
    weight = as_weight("encode_sparse", weight)
    packed = _packed_mask("encode_sparse", mask, weight.shape)
    count = count_bits(packed, weight.size)
    out = as_output("encode_sparse", out, (count,), weight.dtype, weight, packed)
    encode_sparse_native(weight, packed, out, as_threads("encode_sparse", num_threads))
    return out


def decode_sparse(
    values: Any,
    mask: Any,
    shape: tuple[int, ...],
    *,
    out: NDArray[Any] | None = None,
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Return an array with values where `mask` is true and 0 elsewhere; the inverse of `encode_sparse`.

    Parameters
    ----------
    values : array_like of float16, bfloat16, float32 or float64
        As many as the mask has ones, 1-D, in row-major order; float64 is rounded to float32.
    mask : array_like
        bool in `shape`, or the packed bytes of `pack_mask`.
    shape : tuple of int
        Shape of the array.
    out : numpy.ndarray, optional
        C-contiguous array of `shape` and of the dtype of `values` to write to.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray
        `out`, or a new array.

    Raises
    ------
    TypeError
        If the values are not a float array.
    ValueError
        If the mask, the number of values or `out` does not fit.
    """
    values = as_weight("decode_sparse", values, "values")
    shape = as_shape("decode_sparse", shape)
    packed = _packed_mask("decode_sparse", mask, shape)
    count = count_bits(packed, prod(shape))
    if values.shape != (count,):
        raise ValueError(
            f"decode_sparse: values must be 1-D with {count} elements, one per 1 of the mask, not {values.shape}"
        )
    out = as_output("decode_sparse", out, shape, values.dtype, values, packed)
    decode_sparse_native(packed, values, out, as_threads("decode_sparse", num_threads))
    return out


def _packed_mask(name: str, mask: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    array = as_array(name, "mask", mask, MASKS)
    size = packed_size(prod(shape), 1)
    if array.dtype == np.bool_ and array.shape == shape:
        return pack_mask(array)
    if array.dtype == np.uint8 and array.shape == (size,):
        return contiguous(array)
    raise ValueError(f"{name}: mask must be bool {shape} or {size} packed bytes, not {array.dtype} {array.shape}")


def magnitude_mask(weight: Any, threshold: float, *, num_threads: int | None = None) -> NDArray[np.bool_]:
    """Return where ``|weight| > threshold``, compared exactly.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is rounded to float32. Finite.
    threshold : float
        Not negative; not rounded to the weight's dtype.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of bool
        In the weight's shape.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        If the threshold is negative or NaN, or the weight contains NaN or infinite values.
    """
    num_threads = as_threads("magnitude_mask", num_threads)
    limit = checked_threshold("magnitude_mask", threshold)
    array = as_weight("magnitude_mask", weight)
    ((mask, _, _, nonfinite),) = prune([array], [threshold_rule(limit, array.dtype)], False, num_threads)
    if nonfinite:
        raise not_finite("magnitude_mask", array, num_threads)
    return unpack_mask(mask, array.size).reshape(array.shape)


def n_m_mask(weight: Any, n: int, m: int, dim: int = 1, *, num_threads: int | None = None) -> NDArray[np.bool_]:
    """Return False for the n weights of smallest magnitude out of every m along an axis, and True for the others.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape with such an axis.
    n, m : int
        n of every m consecutive weights are removed, ``0 <= n <= m <= 1024``. Among equal magnitudes the first is
        removed first.
    dim : int
        The axis. It is padded with zeros to a multiple of m, which are removed first.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of bool
        In the weight's shape. Survivors may be zero.

    Raises
    ------
    TypeError
        If the weight is not a float array.
    ValueError
        For n, m and axes out of range, and NaN or infinite weights.
    """
    ratio = checked_n_m_ratio("n_m_mask", (n, m))
    num_threads = as_threads("n_m_mask", num_threads)
    weight = as_finite_weight("n_m_mask", weight, num_threads)
    axis = checked_axis("n_m_mask", "dim", as_whole("n_m_mask", "dim", dim), weight.shape)
    return n_m_keep(weight, ratio, axis, num_threads).view(np.bool_).reshape(weight.shape)
