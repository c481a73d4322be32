"""The parts, for tools that build formats of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_finite_weight, as_weight, checked_axis
from .compression import n_m_keep, prune
from .specs import PALETTE_BITS, checked_n_m_ratio
from .tensors import packed_size

__all__ = [
    "decode_sparse",
    "encode_sparse",
    "kmeans1d",
    "magnitude_mask",
    "n_m_mask",
    "pack_bits",
    "pack_mask",
    "unpack_bits",
    "unpack_mask",
]


def _require_nbits(name: str, nbits: int) -> None:
    if nbits not in PALETTE_BITS:
        raise ValueError(f"{name}: nbits must be {', '.join(map(str, PALETTE_BITS))}, not {nbits}")


def _output(name: str, out: NDArray[np.uint8] | None, size: int) -> NDArray[np.uint8]:
    if out is None:
        return np.empty(size, np.uint8)
    if out.dtype != np.uint8 or out.shape != (size,) or not out.flags.c_contiguous:
        raise ValueError(f"{name}: out must be {size} contiguous bytes of uint8, not {out.dtype} {out.shape}")
    return out


def pack_bits(codes: Any, nbits: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack codes into one stream of bits, least significant bit first.

    Element i occupies bits ``[i * nbits, (i + 1) * nbits)``; bit p is bit ``p % 8`` of byte ``p // 8``. There is no
    padding between rows; unused bits of the last byte are 0.

    Parameters
    ----------
    codes : array_like of uint8 or bool
        Codes below ``2**nbits``, any shape, taken in row-major order.
    nbits : {1, 2, 3, 4, 6, 8}
        Bits per code.
    out : numpy.ndarray of uint8, optional
        Array of ``(count * nbits + 7) // 8`` bytes to write to.

    Returns
    -------
    numpy.ndarray of uint8

    Raises
    ------
    ValueError
        If a code does not fit, or `out` has another size.
    TypeError
        If the codes are not uint8 or bool.
    """
    _require_nbits("pack_bits", nbits)
    codes = np.ascontiguousarray(codes)
    if codes.dtype == np.bool_:
        codes = codes.view(np.uint8)
    if codes.dtype != np.uint8:
        raise TypeError(f"pack_bits: codes must be uint8 or bool, not {codes.dtype}")
    if codes.size and int(codes.max()) >= 2**nbits:
        raise ValueError(f"pack_bits: code {int(codes.max())} does not fit {nbits} bits")
    out = _output("pack_bits", out, packed_size(codes.size, nbits))
    _core.pack_bits(codes.reshape(-1), nbits, out)
    return out


def unpack_bits(
    data: NDArray[np.uint8], nbits: int, count: int, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Unpack `count` codes; the inverse of `pack_bits`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
        ``(count * nbits + 7) // 8`` bytes.
    nbits : {1, 2, 3, 4, 6, 8}
        Bits per code.
    count : int
        Number of codes.
    out : numpy.ndarray of uint8, optional
        1-D array of `count` bytes to write to.

    Returns
    -------
    numpy.ndarray of uint8
        1-D.
    """
    _require_nbits("unpack_bits", nbits)
    if count < 0:
        raise ValueError(f"unpack_bits: count must not be negative, not {count}")
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != packed_size(count, nbits):
        raise ValueError(
            f"unpack_bits: {count} codes of {nbits} bits are {packed_size(count, nbits)} bytes, not {data.size}"
        )
    out = _output("unpack_bits", out, count)
    _core.unpack_bits(data, nbits, count, out)
    return out


def pack_mask(mask: Any, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack a mask of bool or of 0 and 1 into bits, least significant bit first; see `pack_bits`."""
    return pack_bits(mask, 1, out)


def unpack_mask(data: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Unpack `count` bits to a 1-D bool array; the inverse of `pack_mask`."""
    return unpack_bits(data, 1, count).view(np.bool_)


def encode_sparse(weight: Any, mask: Any, *, num_threads: int | None = None) -> NDArray[Any]:
    """Return the weights where `mask` is true, in row-major order.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
        Any shape; float64 is narrowed to float32.
    mask : array_like
        bool in the weight's shape, or the packed bytes of `pack_mask`.
    """
    weight = as_weight("encode_sparse", weight)
    return _core.encode_sparse(weight, _packed_mask("encode_sparse", mask, weight.shape), num_threads)


def decode_sparse(values: Any, mask: Any, shape: tuple[int, ...], *, num_threads: int | None = None) -> NDArray[Any]:
    """Return an array of `shape` with `values` where `mask` is true and 0 elsewhere; the inverse of `encode_sparse`."""
    values = as_weight("decode_sparse", values)
    out = np.empty(shape, values.dtype)
    _core.decode_sparse(_packed_mask("decode_sparse", mask, out.shape), values, out, num_threads)
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
    """Return where ``|weight| > threshold``, as bool in the weight's shape; compared exactly."""
    sparse = prune(weight, threshold=threshold, num_threads=num_threads)
    return unpack_mask(sparse.mask, sparse.size).reshape(sparse.shape)


def n_m_mask(weight: Any, n: int, m: int, dim: int = 1, *, num_threads: int | None = None) -> NDArray[np.bool_]:
    """Return False for the n weights of smallest magnitude out of every m along an axis, and True for the others.

    Parameters
    ----------
    weight : array_like of float16, float32 or float64
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
    """
    ratio = checked_n_m_ratio("n_m_mask", (n, m))
    weight = as_finite_weight("n_m_mask", weight, num_threads)
    axis = checked_axis("n_m_mask", "dim", dim, weight.shape)
    return n_m_keep(weight, ratio, axis, num_threads).view(np.bool_).reshape(weight.shape)


def kmeans1d(
    values: Any, k: int, weights: Any = None
) -> tuple[NDArray[np.uint8] | NDArray[np.int32], NDArray[np.float64], float]:
    """Cluster numbers optimally.

    Parameters
    ----------
    values : array_like
        1-D, finite, taken as float64.
    k : int
        Number of clusters, at least 1.
    weights : array_like, optional
        Importance of each value, not negative, at least one positive; None for 1 each.

    Returns
    -------
    codes : numpy.ndarray
        Cluster of each value, ascending with it; uint8 for k up to 256, else int32.
    centroids : numpy.ndarray of float64
        Weighted means of the clusters, ascending. Fewer than k if there are fewer distinct values.
    inertia : float
        The weighted sum of squared distances, the least possible.

    Notes
    -----
    Gronlund et al., arXiv:1701.07204: a least-weight subsequence under a price per cluster; certified by its bound.
    """
    values = np.ascontiguousarray(values, np.float64)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"kmeans1d: values must be 1-D and not empty, not shape {values.shape}")
    if k < 1:
        raise ValueError(f"kmeans1d: k must be at least 1, not {k}")
    if not np.isfinite(values).all():
        raise ValueError("kmeans1d: values must be finite")
    weights = np.ones_like(values) if weights is None else np.ascontiguousarray(weights, np.float64)
    if weights.shape != values.shape or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise ValueError("kmeans1d: weights must be finite, not negative, not all 0, one per value")
    distinct, inverse = np.unique(values, return_inverse=True)
    totals = np.bincount(inverse, weights).astype(np.float64)
    positive = totals > 0
    distinct, totals = distinct[positive], totals[positive]
    # A power of two, which changes no digit, keeps squares within the range of doubles.
    _, exponent = np.frexp(np.abs(distinct).max())
    ends, centroids, _ = _core.kmeans1d_sorted(np.ldexp(distinct, -exponent), totals, k)
    distances = np.ldexp(values, -exponent)
    # The middle of neighbouring numbers is one of them; a cut stays between its clusters.
    middles = (centroids[:-1] + centroids[1:]) / 2
    centroids = np.ldexp(centroids, exponent)
    last, following = distinct[ends[:-1] - 1], distinct[ends[:-1]]
    cuts = np.clip(np.ldexp(middles, exponent), last, np.nextafter(following, -np.inf))
    clusters = np.searchsorted(cuts, values, side="left")
    distances -= np.ldexp(centroids[clusters], -exponent)
    with np.errstate(over="ignore"):
        inertia = float(np.ldexp((weights * distances**2).sum(), 2 * exponent))
    return clusters.astype(np.uint8 if k <= 256 else np.int32), centroids, inertia
