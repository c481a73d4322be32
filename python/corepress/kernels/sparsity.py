"""What pruning keeps: masks, and the values where they are 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..arrays import as_finite_weight, as_threads, as_weight, can_hold, checked_axis
from ..compression import n_m_keep, prune
from ..specs import checked_n_m_ratio
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
        Any shape; float64 is narrowed to float32.
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
    out = _float_output("encode_sparse", out, (_core.count_bits(packed, weight.size),), weight.dtype)
    _core.encode_sparse(weight, packed, out, as_threads("encode_sparse", num_threads))
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
        As many as the mask has ones, 1-D, in row-major order; float64 is narrowed to float32.
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
    values = as_weight("decode_sparse", values)
    out = _float_output("decode_sparse", out, tuple(shape), values.dtype)
    packed = _packed_mask("decode_sparse", mask, out.shape)
    count = _core.count_bits(packed, out.size)
    if values.shape != (count,):
        raise ValueError(
            f"decode_sparse: values must be 1-D with {count} elements, one per 1 of the mask, not {values.shape}"
        )
    _core.decode_sparse(packed, values, out, as_threads("decode_sparse", num_threads))
    return out


def _float_output(name: str, out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if not can_hold(out, shape, dtype):
        raise ValueError(
            f"{name}: out must be a writable, contiguous and aligned {dtype} array {shape}, not {out.dtype} {out.shape}"
        )
    return out


def _packed_mask(name: str, mask: Any, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mask = np.asarray(mask)
    size = int(np.prod(shape))
    if mask.dtype == np.bool_ and mask.shape == tuple(shape):
        return pack_mask(mask)
    if mask.dtype == np.uint8 and mask.shape == (packed_size(size, 1),):
        return np.ascontiguousarray(mask)
    rule = f"bool {tuple(shape)} or {packed_size(size, 1)} packed bytes"
    raise ValueError(f"{name}: mask must be {rule}, not {mask.dtype} {mask.shape}")


def magnitude_mask(weight: Any, threshold: float, *, num_threads: int | None = None) -> NDArray[np.bool_]:
    """Return where ``|weight| > threshold``, compared exactly.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is narrowed to float32. Finite.
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
        If the threshold is negative or NaN, or the weight holds NaN or infinite values.
    """
    num_threads = as_threads("magnitude_mask", num_threads)
    sparse = prune(as_weight("magnitude_mask", weight), threshold=threshold, num_threads=num_threads)
    return unpack_mask(sparse.mask, sparse.size).reshape(sparse.shape)


def n_m_mask(weight: Any, n: int, m: int, dim: int = 1, *, num_threads: int | None = None) -> NDArray[np.bool_]:
    """Return False for the n weights of smallest magnitude out of every m along an axis, and True for the others.

    Parameters
    ----------
    weight : array_like of float16, bfloat16, float32 or float64
        Any shape with such an axis.
    n, m : int
        How many of how many consecutive weights go, ``0 <= n <= m <= 1024``. Of equal magnitudes the first goes first.
    dim : int
        The axis. It ends as if zeros followed up to a multiple of m, which are the first to go.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of bool
        In the weight's shape. Weights that stay may be zero.

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
    axis = checked_axis("n_m_mask", "dim", dim, weight.shape)
    return n_m_keep(weight, ratio, axis, num_threads).view(np.bool_).reshape(weight.shape)
