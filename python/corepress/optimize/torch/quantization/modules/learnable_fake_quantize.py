"""Learnable fake quantization under coremltools' name and parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .....training.fake_quantize import LearnableFakeQuantize as _LearnableFakeQuantize
from .....training.observers import is_signed, quantized_range


class LearnableFakeQuantize(_LearnableFakeQuantize):
    """Fake quantization whose scale, and zero point unless it is fixed, are parameters (LSQ, LSQ+).

    Parameters
    ----------
    observer : type or torch.nn.Module
        The class of the observer, made with what follows, or an observer, to which nothing is added.
    dtype : torch.dtype, optional
    qscheme : torch.qscheme, optional
    reduce_range : bool
        Use one bit less.
    **observer_kwargs
        For the observer: ``quant_min`` and ``quant_max`` for example.
    """

    def __init__(
        self,
        observer: Any,
        dtype: torch.dtype | None = None,
        qscheme: torch.qscheme | None = None,
        reduce_range: bool = False,
        **observer_kwargs: Any,
    ) -> None:
        if not isinstance(observer, torch.nn.Module):
            if dtype not in (torch.quint8, torch.qint8):
                raise ValueError(f"LearnableFakeQuantize: dtype must be torch.quint8 or torch.qint8, not {dtype}")
            if reduce_range:
                ends = quantized_range(7, dtype)
                for name, end in zip(("quant_min", "quant_max"), ends, strict=True):
                    if observer_kwargs.get(name) is None:
                        observer_kwargs[name] = end
            observer = observer(dtype=dtype, qscheme=qscheme, **observer_kwargs)
        super().__init__(observer)
        self.reduce_range = reduce_range
        self.signed = is_signed(self.dtype)
        self.channel_count = 1
        self.device: torch.device | None = None
        self.shape: Sequence[int] | None = None
        self.mask_shape: list[int] | None = None

    def set_device(self, device: torch.device) -> None:
        """Move parameters and buffers to a device."""
        self.to(device)
        self.device = device

    def set_ch_axis(self, ch_axis: int) -> None:
        """Set the axis of channels, before `set_param_shape`."""
        self.ch_axis = self.activation_post_process.ch_axis = ch_axis

    def set_param_shape(self, shape: Sequence[int]) -> None:
        """Make a scale and a zero point for each channel of a tensor of this shape."""
        self.shape = shape
        self.mask_shape = [1] * len(shape)
        self.mask_shape[self.ch_axis] = self.channel_count = shape[self.ch_axis]
        device = self.scale.device
        self._set_parameters(
            torch.ones(self.channel_count, device=device), torch.zeros(self.channel_count, device=device)
        )
