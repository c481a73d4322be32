"""Quantization of activations in finalized models."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import torch

from .fake_quantize import DEVICES_OF_KERNELS, straight_through


class QuantizeDequantize(torch.nn.Module):
    """Quantization to unsigned integers of 8 bits and back, by a fixed scale: what conversion turns into operations.

    ``torch.jit.trace`` and ``torch.export`` see a pair of operations that ``coremltools.convert`` knows.

    Parameters
    ----------
    scale : float
    zero_point : int
        0 to 255.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor([scale], dtype=torch.float32))
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32))
        self._set_numbers()
        decomposed_operations()  # not only while a graph is made, when nothing can be imported

    def _set_numbers(self) -> None:
        self._scale, self._zero_point = float(self.scale), int(self.zero_point)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the nearest values that the integers express."""
        if not x.is_floating_point():
            return x
        values = x if x.dtype == torch.float32 else x.float()
        if _is_tracing():
            with warnings.catch_warnings():  # PyTorch will remove what coremltools reads; then exporting is left
                warnings.simplefilter("ignore")
                integers = torch.quantize_per_tensor(values, self._scale, self._zero_point, torch.quint8)
            return integers.dequantize().to(x.dtype)
        if _is_exporting():
            operations = decomposed_operations()
            ends = (self._scale, self._zero_point, 0, 255, torch.uint8)
            return operations.dequantize_per_tensor(operations.quantize_per_tensor(values, *ends), *ends).to(x.dtype)  # type: ignore[no-any-return]
        if x.device.type in DEVICES_OF_KERNELS:
            return torch.fake_quantize_per_tensor_affine(values, self.scale, self.zero_point, 0, 255).to(x.dtype)
        zero_point = self.zero_point.to(values.dtype)
        return straight_through(values, self.scale, zero_point, -1, 0, 255, 1.0).to(x.dtype)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._set_numbers()

    def extra_repr(self) -> str:
        return f"scale={self._scale:.6g}, zero_point={self._zero_point}"


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def _is_exporting() -> bool:
    compiler = torch.compiler
    return bool(getattr(compiler, "is_exporting", compiler.is_compiling)())


_DEFINED: list[Any] = []  # a library's operations are there as long as the object is


def decomposed_operations() -> Any:
    """Return PyTorch's operations ``quantized_decomposed``; where PyTorch no longer has them, equal ones."""
    operations = torch.ops.quantized_decomposed
    if not hasattr(operations, "quantize_per_tensor"):
        try:
            importlib.import_module("torch.ao.quantization.fx._decomposed")
        except ImportError:
            _DEFINED.append(_define_decomposed())
    return operations


def _define_decomposed() -> Any:
    library: Any = torch.library.Library("quantized_decomposed", "FRAGMENT")  # type: ignore[no-untyped-call]
    ends = "float scale, int zero_point, int quant_min, int quant_max, ScalarType dtype"
    library.define(f"quantize_per_tensor(Tensor input, {ends}) -> Tensor")
    library.define(f"dequantize_per_tensor(Tensor input, {ends}, *, ScalarType? out_dtype=None) -> Tensor")

    def quantize(x: torch.Tensor, scale: float, zero_point: int, low: int, high: int, dtype: Any) -> torch.Tensor:
        return (torch.round(x / scale) + zero_point).clamp(low, high).to(dtype)

    def dequantize(
        x: torch.Tensor, scale: float, zero_point: int, low: int, high: int, dtype: Any, out_dtype: Any = None
    ) -> torch.Tensor:
        return ((x.to(torch.float32) - zero_point) * scale).to(out_dtype or torch.float32)

    library.impl("quantize_per_tensor", quantize, "CompositeExplicitAutograd")
    library.impl("dequantize_per_tensor", dequantize, "CompositeExplicitAutograd")
    return library
