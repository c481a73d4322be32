"""k-means by other tools. Each function prepares what the tool wants and returns the job that is timed."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corepress.benchmark.timing import Job
from corepress.specs import Palettize

Array = NDArray[Any]


# --- of numbers ---


@cache
def _coreai() -> tuple[Any, Any]:
    """coreai-opt's implementation of palettes, and its module of granularities."""
    logging.getLogger("coreai_opt").setLevel(logging.ERROR)
    from coreai_opt.palettization import spec
    from coreai_opt.palettization.kmeans.kmeans_fake_palettize import _KMeansFakePalettize

    return _KMeansFakePalettize, spec


def coreai_palettize(
    weight: Array, nbits: int, group_size: int = 0, cluster_dim: int = 1, *, exact: bool = False
) -> Job:
    """Its default rounds to 4 decimals before it clusters; `exact` does not. It compiles its solver when first used."""
    import torch

    palettizer, spec = _coreai()
    granularity = spec.PerGroupedChannelGranularity(axis=0, group_size=group_size) if group_size else None
    tensor = torch.from_numpy(np.array(weight.reshape(weight.shape[0], -1)))

    def cluster(rows: Any) -> Any:
        made = palettizer(
            n_bits=nbits,
            lut_qspec=None,
            granularity=granularity or spec.PerTensorGranularity(),
            cluster_dim=cluster_dim,
            enable_per_channel_scale=False,
            enable_fast_kmeans_mode=not exact,
        )
        return made._cluster_to_centroids(rows)

    cluster(tensor[: max(group_size, cluster_dim)])
    return lambda: (*cluster(tensor), weight.shape)


def coreai_decoded(result: Any) -> Array:
    """The dense array of what `coreai_palettize` made of a weight with one table."""
    centroids, indices, shape = result
    return np.asarray(centroids[0, :, 0].numpy()[indices.numpy().reshape(-1)].reshape(shape))


def flash1d_palettize(weight: Array, nbits: int) -> Job:
    """Its own defaults: k-means++ and Lloyd's rounds on sorted numbers, no optimum. It is compiled when first used."""
    from flash1dkmeans import kmeans_1d

    numbers = weight.astype(np.float32).reshape(-1)

    def cluster(some: Array) -> tuple[Array, Array, tuple[int, ...]]:
        centroids, codes = kmeans_1d(some, 2**nbits, random_state=0)
        return centroids, codes, weight.shape

    cluster(numbers[:10_000])
    return lambda: cluster(numbers)


def flash1d_decoded(result: Any) -> Array:
    centroids, codes, shape = result
    return np.asarray(centroids[codes].reshape(shape))


def kmeans1d_cluster(numbers: Array, k: int) -> Job:
    """The package whose solver coremltools and coreai-opt bring along, as it is published."""
    import kmeans1d

    return lambda: kmeans1d.cluster(numbers, k)


def flash1d_cluster(numbers: Array, k: int) -> Job:
    from flash1dkmeans import kmeans_1d

    kmeans_1d(numbers[:1000], k, random_state=0)
    return lambda: kmeans_1d(numbers, k, random_state=0)


# --- of vectors ---


def vectors(weight: Array, cluster_dim: int) -> NDArray[np.float32]:
    """Every `cluster_dim` consecutive elements of axis 0, as rows."""
    split = weight.reshape(-1, cluster_dim, weight[0].size).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(-1, cluster_dim), np.float32)


def from_vectors(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `vectors`."""
    rest = int(np.prod(shape[1:]))
    return rows.reshape(-1, rest, rows.shape[1]).swapaxes(1, 2).reshape(shape)


def sklearn_kmeans(weight: Array, nbits: int, cluster_dim: int = 1) -> Job:
    """As coremltools calls it."""
    from sklearn.cluster import KMeans

    rows = vectors(weight, cluster_dim)

    def job() -> Array:
        found = KMeans(2**nbits, init="k-means++", tol=1e-2, n_init=1, random_state=0).fit(rows)
        return np.asarray(found.cluster_centers_[found.labels_])

    return job


def faiss_kmeans(weight: Array, nbits: int, cluster_dim: int = 1) -> Job:
    """Its own defaults: 25 rounds on at most 256 vectors per entry; then all vectors take their nearest entry."""
    import faiss

    rows = vectors(weight, cluster_dim)

    def job() -> Array:
        kmeans = faiss.Kmeans(cluster_dim, 2**nbits, seed=0)
        kmeans.train(rows)
        return np.asarray(kmeans.centroids[kmeans.assign(rows)[1]])

    return job


# --- by what is asked for ---


def job(tool: str, step: Palettize, weight: Array) -> Job | None:
    """What `tool` does when asked for a palette by k-means, or None where it has nothing like it."""
    assert step.nbits is not None
    group_size = step.group_size if step.granularity == "per_grouped_channel" else 0
    if weight.shape[0] % (group_size or step.cluster_dim):
        return None
    if tool == "coreai-opt, exact" and step.cluster_dim > 1:
        return None  # only numbers are rounded by its default
    if tool.startswith("coreai-opt"):
        return coreai_palettize(weight, step.nbits, group_size, step.cluster_dim, exact=tool.endswith("exact"))
    if group_size:
        return None
    if tool == "flash1dkmeans" and step.cluster_dim == 1:
        return flash1d_palettize(weight, step.nbits)
    if tool == "scikit-learn":
        return sklearn_kmeans(weight, step.nbits, step.cluster_dim)
    if tool == "faiss":
        return faiss_kmeans(weight, step.nbits, step.cluster_dim)
    return None
