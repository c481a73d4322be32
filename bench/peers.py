"""The same jobs by other tools. Each function prepares what the tool wants and returns the job that is timed.

Tools are imported when their job is made, and none is required: `missing` tells which cannot be.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Job = Callable[[], Any]
Array = NDArray[Any]

# The package that each tool is imported from.
MODULES = {
    "coremltools": "coremltools",
    "scikit-learn": "sklearn",
    "faiss": "faiss",
    "MLX": "mlx",
    "gguf": "gguf",
    "ggml": "pywhispercpp",  # llama.cpp's library of C kernels, which this package brings ready-made
    "NumPy": "numpy",
}


def missing(tool: str) -> bool:
    """Whether a tool cannot be imported here."""
    return importlib.util.find_spec(MODULES[tool]) is None


# --- coremltools, called where it calls itself, without the rest of its pipeline ---


@cache
def passes() -> Any:
    """coremltools' module of compression passes, imported without its noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        import coremltools.optimize.coreml._quantization_passes as module
    return module


def coremltools_palettize(weight: Array, nbits: int, group_size: int = 0) -> Job:
    """k-means; `group_size` 0 is per tensor, else along axis 0. float32 goes to scikit-learn."""
    block_sizes = [0] * weight.ndim
    block_sizes[0] = group_size
    if weight.dtype.name == "bfloat16":  # unknown there: its users widen
        weight = weight.astype(np.float32)
    return lambda: passes().palettize_weights.blockwise_compress(weight, "KMEANS", nbits, block_sizes)


def coremltools_palette_decoded(result: Any) -> Array:
    return passes().palettize_weights.decompress(result)


def coremltools_quantize(weight: Array, nbits: int = 8, block_size: int = 0) -> Job:
    """Symmetric int8 or int4, one scale per entry of axis 0, or per `block_size` entries of axis 1 too."""
    block_sizes = [0] * weight.ndim
    block_sizes[:2] = 1, block_size
    return lambda: passes().linear_quantize_weights.blockwise_compress(
        weight, nbits, "LINEAR_SYMMETRIC", True, block_sizes
    )


def coremltools_quantized_decoded(result: Any) -> Array:
    return passes().linear_quantize_weights.decompress(result)


def coremltools_prune_n_m(weight: Array, n: int, m: int) -> Job:
    """n of every m along axis 1."""
    return lambda: passes().prune_weights.compress_by_nm_sparsity(weight, (n, m), 1)


def coremltools_pack(codes: Array, nbits: int) -> Job:
    from coremltools.optimize import _utils

    return lambda: _utils.pack_elements_into_bits(codes, nbits)


def coremltools_unpack(packed: Array, nbits: int, count: int) -> Job:
    from coremltools.optimize import _utils

    return lambda: _utils.restore_elements_from_packed_bits(packed, nbits, count)


# --- NumPy, as one writes it correctly ---


def _sparse(weight: Array, mask: NDArray[np.bool_]) -> tuple[Array, Array]:
    """The packed mask and the values."""
    return np.packbits(mask, bitorder="little"), weight[mask]


def numpy_prune_magnitude(weight: Array, target_sparsity: float) -> Job:
    """The smallest magnitudes; float32, because NumPy's float16 percentiles overflow."""
    rank = int((weight.size - 1) * target_sparsity)

    def job() -> tuple[Array, Array]:
        magnitudes = np.abs(weight).astype(np.float32, copy=False)
        return _sparse(weight, magnitudes > np.partition(magnitudes, rank, axis=None)[rank])

    return job


def numpy_prune_threshold(weight: Array, threshold: float) -> Job:
    return lambda: _sparse(weight, np.abs(weight) > np.float32(threshold))


def numpy_prune_n_m(weight: Array, n: int, m: int) -> Job:
    """n of every m along axis 1; sorted as float32, which NumPy does faster than float16."""

    def job() -> tuple[Array, Array]:
        groups = np.abs(weight).astype(np.float32, copy=False).reshape(weight.shape[0], -1, m, *weight.shape[2:])
        mask = np.ones(groups.shape, bool)
        np.put_along_axis(mask, np.argsort(groups, axis=2, kind="stable")[:, :, :n], False, axis=2)
        return _sparse(weight, mask.reshape(weight.shape) & (weight != 0))  # zeros are never stored

    return job


def numpy_prune_blocks(weight: Array, target_sparsity: float, block_size: int) -> Job:
    """Blocks along axis 0 of smallest L2 norm; sums of squares in float64."""
    rank = int((weight.size - 1) * target_sparsity)

    def job() -> tuple[Array, Array]:
        blocks = weight.reshape(-1, block_size, *weight.shape[1:]).astype(np.float64)
        norms = np.repeat(np.square(blocks).sum(axis=1), block_size, axis=0).reshape(weight.shape)
        stays = norms > np.partition(norms, rank, axis=None)[rank]
        return _sparse(weight, stays & (weight != 0))  # zeros are never stored

    return job


def numpy_squared_error(first: Array, second: Array) -> Job:
    return lambda: np.square(first.astype(np.float64) - second).sum()


# --- k-means of vectors ---


def vectors(weight: Array, cluster_dim: int) -> NDArray[np.float32]:
    """Every `cluster_dim` consecutive elements of axis 0, as rows."""
    split = weight.reshape(-1, cluster_dim, weight[0].size).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(-1, cluster_dim), np.float32)


def from_vectors(rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `vectors`."""
    rest = int(np.prod(shape[1:]))
    return rows.reshape(-1, rest, rows.shape[1]).swapaxes(1, 2).reshape(shape)


def sklearn_kmeans(weight: Array, nbits: int, cluster_dim: int) -> Job:
    """As coremltools calls it."""
    from sklearn.cluster import KMeans

    rows = vectors(weight, cluster_dim)

    def job() -> Array:
        found = KMeans(2**nbits, init="k-means++", tol=1e-2, n_init=1, random_state=0).fit(rows)
        return found.cluster_centers_[found.labels_]

    return job


def faiss_kmeans(weight: Array, nbits: int, cluster_dim: int) -> Job:
    """Its own defaults: 25 rounds on at most 256 vectors per entry; then all vectors take their nearest entry."""
    import faiss

    rows = vectors(weight, cluster_dim)

    def job() -> Array:
        kmeans = faiss.Kmeans(cluster_dim, 2**nbits, seed=0)
        kmeans.train(rows)
        return kmeans.centroids[kmeans.assign(rows)[1]]

    return job


# --- four bits in blocks of 32 ---


def mlx_quantize(weight: Array) -> Job:
    """Its 4-bit form: a scale and a bias per group of 32, which makes 5 bits per weight."""
    import mlx.core as mx

    rows = mx.array(weight.reshape(weight.shape[0], -1))

    def job() -> Any:
        result = mx.quantize(rows, group_size=32, bits=4, stream=mx.cpu)
        mx.eval(result)
        return result

    return job


def mlx_decoded(result: Any) -> Array:
    import mlx.core as mx

    return np.array(mx.dequantize(*result, group_size=32, bits=4, stream=mx.cpu))


def gguf_quantize(weight: Array) -> Job:
    """Q4_0 in NumPy: a float16 scale per 32 weights, 4.5 bits per weight."""
    import gguf

    rows = weight.reshape(weight.shape[0], -1).astype(np.float32)
    return lambda: gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q4_0)


def gguf_decoded(result: Any) -> Array:
    import gguf

    return gguf.quants.dequantize(result, gguf.GGMLQuantizationType.Q4_0)


Q4_0 = 2  # ggml_type
Q4_0_BYTES = 18  # of a block of 32


@cache
def _ggml() -> Any:
    module = importlib.util.find_spec(MODULES["ggml"])
    assert module is not None
    assert module.origin is not None
    site = Path(module.origin).parent
    site = site.parent if site.name == MODULES["ggml"] else site
    library = ctypes.CDLL(str(next(site.rglob("libggml-base*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        *[ctypes.c_void_p] * 2,
        *[ctypes.c_int64] * 3,
        ctypes.c_void_p,
    ]
    return library


def ggml_quantize(weight: Array) -> Job:
    """Q4_0 by ggml's C code, which takes one thread."""
    rows = np.ascontiguousarray(weight.reshape(weight.shape[0], -1), np.float32)
    count, length = rows.shape
    out = np.empty((count, length // 32 * Q4_0_BYTES), np.uint8)
    quantize = _ggml().ggml_quantize_chunk

    def job() -> Array:
        quantize(Q4_0, rows.ctypes.data, out.ctypes.data, 0, count, length, None)
        return out

    return job
