"""k-means of numbers and of vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._core import kmeans as kmeans_native
from .._core import kmeans1d as kmeans1d_native
from ..arrays import as_finite_weight, as_numbers, as_threads
from ..compression.vector_palettization import exponent_of_weights
from ..intake import as_whole

__all__ = ["Clusters", "kmeans", "kmeans1d", "kmeans1d_sweep"]


class Clusters(NamedTuple):
    """The result of `corepress.kernels.kmeans1d`, which unpacks into its three parts.

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
        """Another name for `codes`, as in the package kmeans1d."""
        return self.codes


def kmeans1d(values: Any, k: int, weights: Any = None, *, num_threads: int | None = None) -> Clusters:
    """Cluster numbers optimally.

    Parameters
    ----------
    values : array_like
        Integers or floats, 1-D, or 2-D as a batch of rows, each clustered separately; finite, converted to float64.
    k : int
        Number of clusters, at least 1.
    weights : array_like, optional
        Importance of each value, in the shape of `values`: not negative, at least one positive per row; None for 1
        each. They may span any range; in rows of more than a few thousand distinct values, weights below ``2**-48`` of
        the row's total are raised to that.
    num_threads : int, optional
        Threads that share the rows; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    codes : numpy.ndarray
        Cluster of each value, ascending with it, in the shape of `values`; uint8 for k up to 256, else int32.
    centroids : numpy.ndarray of float64
        Weighted means of the clusters, ascending. If there are fewer distinct values than k, 1-D values give fewer than
        k; rows always give k, with the last repeated.
    inertia : float, or numpy.ndarray of float64 with one per row
        The smallest possible weighted sum of squared distances.

    Raises
    ------
    TypeError
        If the values or weights are not numbers.
    ValueError
        For values that are not finite, of another rank, or none; weights that do not fit; and k below 1.

    Examples
    --------
    In place of the package kmeans1d, and of coremltools' copy of it, which accepts weights::

        clusters, centroids = kmeans1d.cluster(values, k)            # before
        clusters, centroids, _ = cp.kernels.kmeans1d(values, k)      # after; or .clusters and .centroids

    In place of flash1dkmeans, without its random numbers and iterations::

        centroids, labels = kmeans_1d(values, k, sample_weights=weights, random_state=0)
        labels, centroids, _ = cp.kernels.kmeans1d(values, k, weights)

        centroids, borders = kmeans_1d(values, k, is_sorted=True, return_cluster_borders=True)
        labels, centroids, _ = cp.kernels.kmeans1d(values, k)
        borders = np.searchsorted(labels, np.arange(k + 1))

    Notes
    -----
    Gronlund et al., arXiv:1701.07204: a least-weight subsequence under a price per cluster; certified by its bound.
    """
    (clusters,) = _kmeans1d("kmeans1d", values, (k,), weights, num_threads).values()
    return clusters


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
    ValueError, TypeError
        As `kmeans1d` does.
    """
    if not isinstance(ks, Iterable):
        raise TypeError(f"kmeans1d_sweep: ks must be several whole numbers, not {ks!r}")
    return _kmeans1d("kmeans1d_sweep", values, tuple(ks), weights, num_threads)


def _kmeans1d(
    name: str, values: Any, ks: tuple[int, ...], weights: Any, num_threads: int | None
) -> dict[int, Clusters]:
    ks = tuple(as_whole(name, "k", k, 1) for k in ks)
    values = as_numbers(name, "values", values)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"{name}: values must be 1-D or 2-D and not empty, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: values must be finite")
    rows = np.atleast_2d(values)
    if weights is not None:
        weights = as_numbers(name, "weights", weights)
        fits = weights.shape == values.shape and np.isfinite(weights).all()
        if not (fits and (weights >= 0).all() and weights.any(axis=-1).all()):
            raise ValueError(f"{name}: weights must be finite, not negative, not all 0, one per value")
        weights = np.atleast_2d(weights)
    found: dict[int, Clusters] = {}
    needed = [min(k, rows.shape[1]) for k in ks]  # as many clusters as values lose nothing
    for k, (codes, centroids, inertia) in zip(
        ks, kmeans1d_native(rows, weights, needed, as_threads(name, num_threads)), strict=True
    ):
        clusters = codes.astype(np.uint8) if k <= 256 else codes
        if values.ndim == 1:
            found[k] = Clusters(clusters[0], centroids[0, : codes.max() + 1], float(inertia[0]))
        else:
            missing = k - centroids.shape[1]
            found[k] = Clusters(clusters, np.pad(centroids, ((0, 0), (0, missing)), mode="edge"), inertia)
    return found


def kmeans(
    vectors: Any, k: int, weights: Any = None, *, num_threads: int | None = None
) -> tuple[NDArray[np.uint8] | NDArray[np.int32], NDArray[np.float32], float]:
    """Cluster vectors well, but not provably optimally; for numbers, `kmeans1d` finds the optimum.

    Parameters
    ----------
    vectors : array_like of float16, bfloat16, float32 or float64
        Shape ``(count, length)``, finite, not empty. float64 is rounded to float32.
    k : int
        Number of clusters, 1 to 65,536.
    weights : array_like, optional
        Weight of each vector, 1-D: finite, not negative, not all 0; None for 1 each.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not depend
        on it.

    Returns
    -------
    codes : numpy.ndarray
        Nearest centroid of each vector, the first among equally near ones, by the sum of squares in float32; uint8 for
        k up to 256, else int32.
    centroids : numpy.ndarray of float32
        Shape ``(k, length)``, ascending by the first component, then the second, and so on. If there are at most k
        distinct vectors, these, with the last repeated.
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
    Krause, 2018) of up to 65,536 vectors, or 2,048 per cluster if that is more; then each vector is assigned to its
    nearest centroid. All random numbers come from a counter.
    """
    num_threads = as_threads("kmeans", num_threads)
    k = as_whole("kmeans", "k", k, 1, 65_536)
    vectors = as_finite_weight("kmeans", vectors, num_threads, "vectors")
    if vectors.ndim != 2 or vectors.size == 0:
        raise ValueError(f"kmeans: vectors must be 2-D and not empty, not shape {vectors.shape}")
    shares, exponent = None, 0
    if weights is not None:
        array = as_numbers("kmeans", "weights", weights)
        if array.shape != vectors.shape[:1]:
            raise ValueError(f"kmeans: weights must have shape {vectors.shape[:1]}, not {array.shape}")
        exponent = exponent_of_weights("kmeans", "weights", array)
        shares = np.ldexp(array, -exponent).astype(np.float32)
    codes, centroids, inertia = kmeans_native(vectors, k, shares, num_threads)
    return (codes.astype(np.uint8) if k <= 256 else codes), centroids, float(np.ldexp(inertia, exponent))
