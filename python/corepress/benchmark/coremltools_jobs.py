"""The same work by coremltools, through the functions that it calls itself, without the rest of its pipeline."""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..specs import Palettize, Prune, Quantize, Spec
from .timing import Job

Array = NDArray[Any]


@cache
def passes() -> Any:
    """coremltools' module of compression passes, imported without its noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            import coremltools.optimize.coreml._quantization_passes as module
        finally:
            logging.disable(level)
    return module


def palettize(weight: Array, nbits: int, group_size: int = 0, cluster_dim: int = 1) -> Job:
    """k-means; `group_size` 0 is per tensor, else along axis 0. float32 goes to scikit-learn, vectors too."""
    block_sizes = [0] * weight.ndim
    block_sizes[0] = group_size
    if weight.dtype.name == "bfloat16":  # unknown there: its users widen
        weight = weight.astype(np.float32)
    compress = passes().palettize_weights.blockwise_compress
    return lambda: compress(weight, "KMEANS", nbits, block_sizes, cluster_dim=cluster_dim, channel_axis=0)


def palette_decoded(result: Any) -> Array:
    """The dense array of what `palettize` made."""
    return np.asarray(passes().palettize_weights.decompress(result))


def quantize(weight: Array, nbits: int = 8, block_size: int = 0) -> Job:
    """Symmetric int8 or int4, one scale per entry of axis 0, or per `block_size` entries of axis 1 too."""
    block_sizes = [0] * weight.ndim
    block_sizes[:2] = 1, block_size
    compress = passes().linear_quantize_weights.blockwise_compress
    return lambda: compress(weight, nbits, "LINEAR_SYMMETRIC", True, block_sizes)


def quantized_decoded(result: Any) -> Array:
    """The dense array of what `quantize` made."""
    return np.asarray(passes().linear_quantize_weights.decompress(result))


def prune(weight: Array, target_sparsity: float) -> Job:
    """The smallest magnitudes; wrong where NumPy's percentile of float16 overflows, as with 2.0 to 2.3."""
    return lambda: passes().prune_weights.compress_by_magnitude(weight, target_sparsity)


def prune_n_m(weight: Array, n: int, m: int) -> Job:
    """n of every m along axis 1."""
    return lambda: passes().prune_weights.compress_by_nm_sparsity(weight, (n, m), 1)


def job(steps: tuple[Spec, ...], weight: Array) -> Job | None:
    """The job that applies `steps`, or None if this module does not know how."""
    match steps:
        case (Palettize(mode="kmeans", enable_per_channel_scale=False) as step,):
            group_size = step.group_size if step.granularity == "per_grouped_channel" else 0
            assert step.nbits is not None
            return palettize(weight, step.nbits, group_size, step.cluster_dim)
        case (Quantize(mode="linear_symmetric", dtype="int8", granularity="per_channel", scale_search=None),):
            return quantize(weight, 8)
        case (Quantize(mode="linear_symmetric", dtype="int4", granularity="per_block", scale_search=None) as step,):
            return quantize(weight, 4, step.block_size) if isinstance(step.block_size, int) else None
        case (Prune(target_sparsity=float(target), block_size=None),):
            return prune(weight, target)
        case (Prune(target_sparsity=float(target), block_size=None), Palettize() as second):
            return _palettize_pruned(weight, target, second)
    return None


def _palettize_pruned(weight: Array, target_sparsity: float, second: Palettize) -> Job:
    """As its joint compression does: the table is that of the dense weight, zeros included."""

    def work() -> Any:
        pruned = prune(weight, target_sparsity)()
        dense = passes().prune_weights.decompress(pruned).reshape(weight.shape)
        palettized = job((second,), dense)
        return None if palettized is None else palettized()

    return work
