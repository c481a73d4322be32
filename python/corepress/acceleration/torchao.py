"""The functions of torchao that the kernels replace: its tables for Core ML."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .swaps import Internal

_PACKAGE = "torchao.prototype.quantization.codebook_coreml"
_MODULES = (f"{_PACKAGE}.codebook_ops", f"{_PACKAGE}.codebook_quantized_tensor", _PACKAGE)


def _of_tables(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A function of `torch_tables`, which imports torch: torchao has done so when it is replaced."""

    def replace(original: Callable[..., Any]) -> Callable[..., Any]:
        module = importlib.import_module(".torch_tables", __package__)
        replacement: Callable[..., Any] = getattr(module, name)(original)
        return replacement

    return replace


_FUNCTIONS = {
    "choose_qparams_and_quantize_codebook_coreml": (
        ("input_tensor", "code_dtype", "block_size", "force_kmeans1d", "cluster_dim", "vector_axis"),
        "choose_tables",
    ),
    "dequantize_codebook": (("codes", "codebook", "nbits", "block_size", "output_dtype"), "dequantize"),
}

INTERNALS = tuple(
    Internal(module, name, parameters, _of_tables(function))
    for module in _MODULES
    for name, (parameters, function) in _FUNCTIONS.items()
)
