"""Compression of layers one after another, with samples: GPTQ, SparseGPT, and palettes found like GPTQ's codes.

::

    from corepress.optimize.torch.layerwise_compression import LayerwiseCompressor, LayerwiseCompressorConfig

    config = LayerwiseCompressorConfig.from_dict({"global_config": {"algorithm": "gptq", "weight_dtype": "uint4"}})
    compressed = LayerwiseCompressor(model, config).compress(samples, device="cpu")
"""

from __future__ import annotations

from .algorithms import (
    GPTQ,
    GPTQPalettization,
    LayerwiseCompressionAlgorithm,
    LayerwiseCompressionAlgorithmConfig,
    ModuleGPTQConfig,
    ModuleGPTQPalettizationConfig,
    ModuleSparseGPTConfig,
    SparseGPT,
)
from .input_cacher import DefaultInputCacher, FirstLayerInputCacher, GPTFirstLayerInputCacher
from .layerwise_compressor import LayerwiseCompressor, LayerwiseCompressorConfig

__all__ = [
    "GPTQ",
    "DefaultInputCacher",
    "FirstLayerInputCacher",
    "GPTFirstLayerInputCacher",
    "GPTQPalettization",
    "LayerwiseCompressionAlgorithm",
    "LayerwiseCompressionAlgorithmConfig",
    "LayerwiseCompressor",
    "LayerwiseCompressorConfig",
    "ModuleGPTQConfig",
    "ModuleGPTQPalettizationConfig",
    "ModuleSparseGPTConfig",
    "SparseGPT",
]

_OF_COREPRESS = {"GPTQPalettization", "ModuleGPTQPalettizationConfig"}


def __dir__() -> list[str]:
    """The names that coremltools has too."""
    return sorted({*__all__, "algorithms", "input_cacher", "layerwise_compressor"} - _OF_COREPRESS)
