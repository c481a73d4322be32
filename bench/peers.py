"""The same jobs through coremltools, called where it calls itself, without the rest of its pipeline."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from numpy.typing import NDArray


def passes() -> Any:
    """coremltools' module of compression passes, imported without its noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        import coremltools.optimize.coreml._quantization_passes as module
    return module


def palettize(weight: NDArray[Any], nbits: int, group_size: int = 0) -> Any:
    """coremltools' k-means; `group_size` 0 is per tensor, else along axis 0."""
    block_sizes = [0] * weight.ndim
    if group_size:
        block_sizes[0] = group_size
    return passes().palettize_weights.blockwise_compress(weight, "KMEANS", nbits, block_sizes)


def quantize(weight: NDArray[Any], nbits: int = 8, block_size: int = 0) -> Any:
    """coremltools' symmetric int8 or int4, one scale per entry of axis 0, or per `block_size` entries of axis 1 too."""
    block_sizes = [0] * weight.ndim
    block_sizes[:2] = 1, block_size
    return passes().linear_quantize_weights.blockwise_compress(weight, nbits, "LINEAR_SYMMETRIC", True, block_sizes)


def prune(weight: NDArray[Any], target_sparsity: float) -> Any:
    """coremltools' magnitude pruning."""
    return passes().prune_weights.compress_by_magnitude(weight, target_sparsity)
