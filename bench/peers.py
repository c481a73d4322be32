"""The same jobs by other tools. Each function prepares what the tool wants and returns the job that is timed.

Tools are imported when their job is made, and none is required: `missing` tells which cannot be.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kmeans_peers
from corepress.benchmark import coremltools_jobs
from corepress.benchmark.timing import Job
from corepress.specs import Palettize, Quantize, Spec

Array = NDArray[Any]

# The package that each tool is imported from, and its name in the package index.
PACKAGES = {
    "coremltools": ("coremltools", "coremltools"),
    "coreai-opt": ("coreai_opt", "coreai-opt"),
    "coreai-opt, exact": ("coreai_opt", "coreai-opt"),
    "scikit-learn": ("sklearn", "scikit-learn"),
    "kmeans1d": ("kmeans1d", "kmeans1d"),
    "flash1dkmeans": ("flash1dkmeans", "flash1dkmeans"),
    "faiss": ("faiss", "faiss-cpu"),
    "MLX": ("mlx", "mlx"),
    "torchao": ("torchao", "torchao"),
    "gguf": ("gguf", "gguf"),
    "ggml": ("pywhispercpp", "pywhispercpp"),  # it brings llama.cpp's library of C kernels ready-made
    "NumPy": ("numpy", "numpy"),
    "ml_dtypes": ("ml_dtypes", "ml-dtypes"),
}


def missing(tool: str) -> bool:
    """Whether a tool cannot be imported here."""
    return importlib.util.find_spec(PACKAGES[tool][0]) is None


def absent() -> list[str]:
    """The tools that cannot be imported here."""
    return [tool for tool in PACKAGES if missing(tool)]


def index_names() -> list[str]:
    """The packages of all tools, by their names in the package index, with what they run on."""
    return [*dict.fromkeys(name for _, name in PACKAGES.values()), "torch", "numba", "coreai-core", "coreai-torch"]


# --- coremltools' packing; its other jobs are in corepress.benchmark.coremltools_jobs ---


def coremltools_pack(codes: Array, nbits: int) -> Job:
    from coremltools.optimize import _utils

    return lambda: _utils.pack_elements_into_bits(codes, nbits)


def coremltools_network_steps(weight: Array, nbits: int) -> Job:
    from coremltools import models
    from coremltools.models.neural_network import quantization_utils

    mode = models._QUANTIZATION_MODE_LINEAR_QUANTIZATION
    return lambda: quantization_utils._quantize_wp(weight, nbits, mode, axis=0)


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
    module = importlib.util.find_spec(PACKAGES["ggml"][0])
    assert module is not None
    assert module.origin is not None
    site = Path(module.origin).parent
    site = site.parent if site.name == PACKAGES["ggml"][0] else site
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


# --- integers with scales, by torchao ---


def torchao_quantize(weight: Array, nbits: int = 8, block_size: int = 0) -> Job:
    """Symmetric integers, one scale per entry of axis 0, or per `block_size` entries of axis 1 too."""
    import torch
    from torchao.quantization.quant_primitives import MappingType, choose_qparams_affine, quantize_affine

    tensor = torch.from_numpy(np.array(weight))
    block = (1, block_size or weight.shape[1], *([1] * (weight.ndim - 2) if block_size else weight.shape[2:]))
    least, most = -(2 ** (nbits - 1)), 2 ** (nbits - 1) - 1

    def job() -> Any:
        scale, zero_point = choose_qparams_affine(tensor, MappingType.SYMMETRIC, block, torch.int8, least, most)
        return quantize_affine(tensor, block, scale, zero_point, torch.int8, least, most)

    return job


# --- floats of few bits, by NumPy with the package ml_dtypes ---


def ml_dtypes_quantize(weight: Array, name: str, block_size: int = 0) -> Job:
    """Codes that are floats: a scale per entry of axis 0, or powers of two per `block_size` elements of a row."""
    import ml_dtypes

    kind = np.dtype(getattr(ml_dtypes, name))
    largest = float(ml_dtypes.finfo(kind).max)
    rows = np.array(weight).reshape(weight.shape[0], -1, block_size or math.prod(weight.shape[1:]))

    def job() -> tuple[Array, Array]:
        values = rows.astype(np.float32)
        scale = np.abs(values).max(2, keepdims=True) / np.float32(largest)
        scale = np.exp2(np.ceil(np.log2(scale))) if block_size else scale.astype(weight.dtype).astype(np.float32)
        codes = np.clip(values / scale, -largest, largest).astype(kind).view(np.uint8).reshape(-1)
        return (codes[::2] | codes[1::2] << 4 if name.startswith("float4") else codes), scale

    return job


# --- by what is asked for ---


def _of_blocks(weight: Array, tool: str) -> Job | None:
    """Four bits in blocks of 32; those of the other tools lie along the last axis."""
    makers = {"MLX": mlx_quantize, "gguf": gguf_quantize, "ggml": ggml_quantize}
    return None if math.prod(weight.shape[1:]) % 32 else makers[tool](weight)


def job(tool: str, steps: tuple[Spec, ...], weight: Array) -> Job | None:
    """What `tool` does when asked for `steps`, or None where it has nothing like them."""
    if tool == "coremltools":
        return coremltools_jobs.job(steps, weight)
    match steps:
        case (Palettize(mode="kmeans", enable_per_channel_scale=False) as step,):
            return kmeans_peers.job(tool, step, weight)
        case (Quantize(dtype="int4", granularity="per_block", block_size=32),) if tool in ("MLX", "gguf", "ggml"):
            return _of_blocks(weight, tool)
        case (Quantize(dtype="int4", granularity="per_block", block_size=32),) if tool == "torchao":
            return None if weight.shape[1] % 32 else torchao_quantize(weight, 4, 32)
        case (Quantize(dtype="int8", granularity="per_channel"),) if tool == "torchao":
            return torchao_quantize(weight)
    return None
