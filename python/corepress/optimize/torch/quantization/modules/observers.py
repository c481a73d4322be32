"""Observers under coremltools' names and parameters; `corepress.training.observers` has what they do."""

from __future__ import annotations

from typing import Any

import torch

from .....training.observers import MinMaxObserver


class NoopObserver(torch.nn.Module):
    """The observer of what is not quantized."""

    def __init__(
        self, dtype: torch.dtype = torch.float16, custom_op_name: str = "", factory_kwargs: Any = None
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.custom_op = custom_op_name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values as they are."""
        return x


class EMAMinMaxObserver(MinMaxObserver):
    """The exponential moving average of the ranges of batches.

    Parameters
    ----------
    dtype : torch.dtype
    qscheme : torch.qscheme
    reduce_range : bool
        Use one bit less, unless `quant_min` and `quant_max` are given.
    quant_min, quant_max : int, optional
    ch_axis : int
        -1 is one range for all channels.
    ema_ratio : float
        The part of the range so far in the next one.
    """

    def __init__(
        self,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        reduce_range: bool = False,
        quant_min: int | None = None,
        quant_max: int | None = None,
        ch_axis: int = -1,
        ema_ratio: float = 0.9,
        factory_kwargs: Any = None,
        is_dynamic: bool = False,
    ) -> None:
        signed = dtype == torch.qint8
        if reduce_range and quant_min is None and quant_max is None:
            quant_min, quant_max = (-64, 63) if signed else (0, 127)
        super().__init__(dtype, qscheme, quant_min, quant_max, ch_axis, 1.0 - ema_ratio)
        self.reduce_range = reduce_range
        self.ema_ratio = ema_ratio
        self.is_dynamic = is_dynamic

    def reset_min_max_vals(self) -> None:
        """Forget what has been observed."""
        self.min_val.fill_(float("inf"))
        self.max_val.fill_(float("-inf"))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        for name in ("min_val", "max_val"):
            value = state_dict.get(prefix + name)
            if value is not None and value.shape != getattr(self, name).shape:  # channels are known by now
                setattr(self, name, value.clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)
