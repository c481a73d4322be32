"""The parts, for tools that build formats of their own."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _core
from .arrays import as_finite_weight, as_threads, as_weight, checked_axis, contiguous
from .compression import n_m_keep, palettize, prune
from .specs import checked_n_m_ratio
from .tensors import packed_size
from .vector_palettes import exponent_of_weights

__all__ = [
    "Clusters",
    "assign",
    "decode_sparse",
    "encode_sparse",
    "kmeans",
    "kmeans1d",
    "kmeans1d_sweep",
    "magnitude_mask",
    "n_m_mask",
    "pack_bits",
    "pack_mask",
    "to_float16",
    "unpack_bits",
    "unpack_mask",
]


def _checked_stream(name: str, nbits: Any, bitorder: str) -> tuple[int, bool]:
    """Return the width, and whether the most significant bit comes first."""
    if not isinstance(nbits, Integral) or isinstance(nbits, bool) or not 1 <= int(nbits) <= 8:
        raise ValueError(f"{name}: nbits must be 1 to 8, not {nbits!r}")
    if bitorder not in ("little", "big"):
        raise ValueError(f"{name}: bitorder must be 'little', 'big', not {bitorder!r}")
    return int(nbits), bitorder == "big"


def _output(name: str, out: NDArray[Any] | None, size: int, dtype: Any = np.uint8) -> NDArray[Any]:
    if out is None:
        return np.empty(size, dtype)
    if out.dtype != dtype or out.shape != (size,) or not out.flags.carray:
        rule = f"{size} contiguous bytes of {np.dtype(dtype)}"
        raise ValueError(f"{name}: out must be {rule}, not {out.dtype} {out.shape}")
    return out


def pack_bits(
    codes: Any,
    nbits: int,
    out: NDArray[np.uint8] | None = None,
    *,
    bitorder: str = "little",
    num_threads: int | None = None,
) -> NDArray[np.uint8]:
    """Pack codes into one stream of bits.

    Element i occupies bits ``[i * nbits, (i + 1) * nbits)``. With `bitorder` ``"little"``, that of ML programs, bit p
    is bit ``p % 8`` of byte ``p // 8``, and a code's least significant bit comes first. With ``"big"``, that of
    ``.mlmodel`` neural networks, bit p is bit ``7 - p % 8``, and the most significant bit comes first. There is no
    padding between rows; unused bits of the last byte are 0.

    Parameters
    ----------
    codes : array_like of uint8, int8 or bool
        Codes below ``2**nbits``, or of int8 from ``-2**(nbits - 1)`` to ``2**(nbits - 1) - 1``, which become two's
        complement; any shape, taken in row-major order.
    nbits : int
        Bits per code, 1 to 8.
    out : numpy.ndarray of uint8, optional
        Array of ``(count * nbits + 7) // 8`` bytes to write to.
    bitorder : {"little", "big"}
        Which bit comes first, as in `numpy.packbits`.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of uint8
        The stream, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError
        If a code does not fit, or `out` has another size.
    TypeError
        If the codes are not uint8, int8 or bool.
    """
    nbits, big = _checked_stream("pack_bits", nbits, bitorder)
    codes = np.ascontiguousarray(codes)
    if codes.dtype not in (np.uint8, np.int8, np.bool_):
        raise TypeError(f"pack_bits: codes must be uint8, int8 or bool, not {codes.dtype}")
    signed = bool(codes.dtype == np.int8)
    out = _output("pack_bits", out, packed_size(codes.size, nbits))
    flat = codes.reshape(-1)
    if not _core.pack_bits(flat.view(np.uint8), nbits, signed, big, out, as_threads("pack_bits", num_threads)):
        lowest = -(2 ** (nbits - 1)) if signed else 0
        wrong = flat[(flat < lowest) | (flat.astype(np.int16) >= lowest + 2**nbits)]
        raise ValueError(f"pack_bits: code {wrong[0]} does not fit {nbits} bits")
    return out


def unpack_bits(
    data: NDArray[np.uint8],
    nbits: int,
    count: int,
    out: NDArray[Any] | None = None,
    *,
    signed: bool = False,
    bitorder: str = "little",
    num_threads: int | None = None,
) -> NDArray[Any]:
    """Unpack `count` codes; the inverse of `pack_bits`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
        ``(count * nbits + 7) // 8`` bytes.
    nbits : int
        Bits per code, 1 to 8.
    count : int
        Number of codes.
    out : numpy.ndarray, optional
        1-D array of `count` elements to write to, uint8, or int8 if `signed`.
    signed : bool
        Whether the codes are two's complement.
    bitorder : {"little", "big"}
        Which bit comes first, as in `numpy.unpackbits`.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray
        The codes, 1-D, uint8, or int8 if `signed`: `out`, or a new array.

    Raises
    ------
    ValueError
        If `data` or `out` has another size.
    """
    nbits, big = _checked_stream("unpack_bits", nbits, bitorder)
    if count < 0:
        raise ValueError(f"unpack_bits: count must not be negative, not {count}")
    data = np.ascontiguousarray(data, np.uint8).reshape(-1)
    if data.size != packed_size(count, nbits):
        raise ValueError(
            f"unpack_bits: {count} codes of {nbits} bits are {packed_size(count, nbits)} bytes, not {data.size}"
        )
    out = _output("unpack_bits", out, count, np.int8 if signed else np.uint8)
    threads = as_threads("unpack_bits", num_threads)
    _core.unpack_bits(data, nbits, bool(signed), big, count, out.view(np.uint8), threads)
    return out


def pack_mask(mask: Any, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Pack a mask into bits, least significant bit first; the last byte is filled with zeros.

    Parameters
    ----------
    mask : array_like of bool, or of uint8 0 and 1
        Any shape, taken in row-major order.
    out : numpy.ndarray of uint8, optional
        Array of ``(count + 7) // 8`` bytes to write to.

    Returns
    -------
    numpy.ndarray of uint8
        The bits, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError, TypeError
        As `pack_bits` does.
    """
    return pack_bits(mask, 1, out)


def unpack_mask(data: NDArray[np.uint8], count: int, out: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Unpack a mask; the inverse of `pack_mask`.

    Parameters
    ----------
    data : numpy.ndarray of uint8
        ``(count + 7) // 8`` bytes, least significant bit first.
    count : int
        Number of bits.
    out : numpy.ndarray of bool, optional
        1-D array of `count` elements to write to.

    Returns
    -------
    numpy.ndarray of bool
        The mask, 1-D: `out`, or a new array.

    Raises
    ------
    ValueError
        If `data` or `out` has another size.
    """
    mask = _output("unpack_mask", out, count, np.bool_)
    unpack_bits(data, 1, count, mask.view(np.uint8))
    return mask


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
    if out.shape != shape or out.dtype != dtype or not out.flags.carray:
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


def assign(values: Any, centroids: Any, *, num_threads: int | None = None) -> NDArray[np.uint8]:
    """Return, for each value, the index of the nearest centroid, the lower one if two are equally near.

    Parameters
    ----------
    values : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is narrowed to float32.
    centroids : array_like
        1 to 256 finite numbers, 1-D, ascending, rounded to the dtype of `values`. Of equal ones the first is taken.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of uint8
        In the shape of `values`.

    Raises
    ------
    TypeError
        If the values are not a float array.
    ValueError
        If the centroids do not ascend, are too many or none, or anything is NaN or infinite.
    """
    if np.ndim(centroids) == 1 and (np.diff(np.asarray(centroids, np.float64)) < 0).any():
        raise ValueError("assign: centroids must ascend")
    num_threads = as_threads("assign", num_threads)
    tensor = palettize(as_weight("assign", values), lut=centroids, num_threads=num_threads)
    return tensor.codes()


def to_float16(values: Any, *, num_threads: int | None = None) -> NDArray[np.float16]:
    """Round to half precision, to nearest even, as NumPy does and faster.

    Parameters
    ----------
    values : array_like
        Any shape, taken as float32.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of float16
        In the shape of `values`. Magnitudes of 65,520 and more become infinite; NaN stays NaN.
    """
    array = contiguous(values, np.float32)
    halves = _core.round_to_half(array.reshape(-1), as_threads("to_float16", num_threads))
    return halves.view(np.float16).reshape(array.shape)


class Clusters(NamedTuple):
    """What `corepress.kernels.kmeans1d` finds; it unpacks into its three parts.

    Attributes
    ----------
    codes : numpy.ndarray of uint8 or int32
        Cluster of each value.
    centroids : numpy.ndarray of float64
        Means of the clusters, ascending.
    inertia : float, or numpy.ndarray of float64 with one per row
        The sum of squared distances.
    """

    codes: NDArray[np.uint8] | NDArray[np.int32]
    centroids: NDArray[np.float64]
    inertia: float | NDArray[np.float64]

    @property
    def clusters(self) -> NDArray[np.uint8] | NDArray[np.int32]:
        """Another name of `codes`, that of the package kmeans1d."""
        return self.codes


def kmeans1d(values: Any, k: int, weights: Any = None, *, num_threads: int | None = None) -> Clusters:
    """Cluster numbers optimally.

    Parameters
    ----------
    values : array_like
        1-D, or 2-D as a batch of rows, each clustered by itself; finite, taken as float64.
    k : int
        Number of clusters, at least 1.
    weights : array_like, optional
        Importance of each value, in the shape of `values`: not negative, at least one positive per row; None for 1
        each.
    num_threads : int, optional
        Threads that share the rows; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    codes : numpy.ndarray
        Cluster of each value, ascending with it, in the shape of `values`; uint8 for k up to 256, else int32.
    centroids : numpy.ndarray of float64
        Weighted means of the clusters, ascending. If there are fewer distinct values than k: of 1-D values fewer than
        k, of rows always k, the last repeated.
    inertia : float, or numpy.ndarray of float64 with one per row
        The weighted sum of squared distances, the least possible.

    Raises
    ------
    ValueError
        For values that are not finite, of another rank, or none; weights that do not fit; and k below 1.

    Examples
    --------
    In the place of the package kmeans1d, and of coremltools' copy of it, which takes weights::

        clusters, centroids = kmeans1d.cluster(values, k)            # before
        clusters, centroids, _ = cp.kernels.kmeans1d(values, k)      # after; or .clusters and .centroids

    In the place of flash1dkmeans, whose random numbers and rounds this does without::

        centroids, labels = kmeans_1d(values, k, sample_weights=weights, random_state=0)
        labels, centroids, _ = cp.kernels.kmeans1d(values, k, weights)

        centroids, borders = kmeans_1d(values, k, is_sorted=True, return_cluster_borders=True)
        labels, centroids, _ = cp.kernels.kmeans1d(values, k)
        borders = np.searchsorted(labels, np.arange(k + 1))

    Notes
    -----
    Gronlund et al., arXiv:1701.07204: a least-weight subsequence under a price per cluster; certified by its bound.
    """
    return _kmeans1d("kmeans1d", values, (k,), weights, num_threads)[k]


def kmeans1d_sweep(
    values: Any, ks: Iterable[int], weights: Any = None, *, num_threads: int | None = None
) -> dict[int, Clusters]:
    """Cluster numbers optimally for several k, sorting them once.

    Parameters
    ----------
    values, weights, num_threads
        As for `kmeans1d`.
    ks : iterable of int
        Numbers of clusters, for example ``(2, 4, 8, 16, 64, 256)``.

    Returns
    -------
    dict of int to Clusters
        For each k what `kmeans1d` returns.

    Raises
    ------
    ValueError
        As `kmeans1d` does.
    """
    return _kmeans1d("kmeans1d_sweep", values, tuple(ks), weights, num_threads)


def _kmeans1d(
    name: str, values: Any, ks: tuple[int, ...], weights: Any, num_threads: int | None
) -> dict[int, Clusters]:
    values = contiguous(values, np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"{name}: values must be 1-D or 2-D and not empty, not shape {values.shape}")
    if min(ks, default=1) < 1:
        raise ValueError(f"{name}: k must be at least 1, not {min(ks)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: values must be finite")
    rows = np.atleast_2d(values)
    if weights is not None:
        weights = contiguous(weights, np.float64)
        positive = np.isfinite(weights).all() and (weights >= 0).all() and weights.any(axis=-1).all()
        if weights.shape != values.shape or not positive:
            raise ValueError(f"{name}: weights must be finite, not negative, not all 0, one per value")
        weights = np.atleast_2d(weights)
    found: dict[int, Clusters] = {}
    for k, (codes, centroids, inertia) in zip(
        ks, _core.kmeans1d(rows, weights, list(ks), as_threads(name, num_threads)), strict=True
    ):
        clusters = codes.astype(np.uint8) if k <= 256 else codes
        if values.ndim == 1:
            found[k] = Clusters(clusters[0], centroids[0, : codes.max() + 1], float(inertia[0]))
        else:
            found[k] = Clusters(clusters, centroids, inertia)
    return found


def kmeans(
    vectors: Any, k: int, weights: Any = None, *, num_threads: int | None = None
) -> tuple[NDArray[np.uint8] | NDArray[np.int32], NDArray[np.float32], float]:
    """Cluster vectors well; of numbers `kmeans1d` finds the optimum.

    Parameters
    ----------
    vectors : array_like of float16, float32 or float64
        Shape ``(count, length)``, finite, not empty. float64 is narrowed to float32.
    k : int
        Number of clusters, 1 to 65,536.
    weights : array_like, optional
        How many vectors each counts for, 1-D: finite, not negative, not all 0; None for 1 each.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not depend
        on it.

    Returns
    -------
    codes : numpy.ndarray
        Nearest centroid of each vector, of equally near ones the first, by the sum of squares in float32; uint8 for k
        up to 256, else int32.
    centroids : numpy.ndarray of float32
        Shape ``(k, length)``, ascending by the first component, then the second, and so on. Where there are no more
        than k distinct vectors, those; the last is repeated.
    inertia : float
        The weighted sum of squared distances.

    Raises
    ------
    TypeError
        If the vectors are not a float array.
    ValueError
        For values out of range.

    Notes
    -----
    Greedy k-means++ (Arthur and Vassilvitskii, 2007) and Lloyd's algorithm on lightweight coresets (Bachem, Lucic and
    Krause, 2018) of up to 65,536 vectors, or 2,048 per cluster if that is more; then each vector takes its nearest
    centroid. All random numbers come from a counter.
    """
    vectors = as_finite_weight("kmeans", vectors, num_threads)
    if vectors.ndim != 2 or vectors.size == 0:
        raise ValueError(f"kmeans: vectors must be 2-D and not empty, not shape {vectors.shape}")
    if not 1 <= k <= 65_536:
        raise ValueError(f"kmeans: k must be from 1 to 65536, not {k}")
    shares, exponent = None, 0
    if weights is not None:
        array = np.asarray(weights)
        if array.shape != vectors.shape[:1]:
            raise ValueError(f"kmeans: weights must have shape {vectors.shape[:1]}, not {array.shape}")
        exponent = exponent_of_weights("kmeans", "weights", array)
        shares = np.ldexp(array.astype(np.float64), -exponent).astype(np.float32)
    codes, centroids, inertia = _core.kmeans(vectors, k, shares, num_threads)
    return (codes.astype(np.uint8) if k <= 256 else codes), centroids, float(np.ldexp(inertia, exponent))
