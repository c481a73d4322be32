"""Observers: ranges of the values that pass, and the scale and zero point that each range makes."""

from __future__ import annotations

from typing import cast

import torch

SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)
PER_CHANNEL = (torch.per_channel_symmetric, torch.per_channel_affine)
SMALLEST_SCALE = float(torch.finfo(torch.float32).eps)


def is_symmetric(qscheme: torch.qscheme) -> bool:
    """Return whether a scheme has a fixed zero point."""
    return qscheme in SYMMETRIC


def is_per_channel(qscheme: torch.qscheme) -> bool:
    """Return whether a scheme has a scale for each channel."""
    return qscheme in PER_CHANNEL


def is_signed(dtype: torch.dtype) -> bool:
    """Return whether integers of a quantized data type can be negative."""
    return dtype in (torch.qint8, torch.int8)


def quantized_range(n_bits: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the smallest and the largest integer of this many bits; signed or not as the data type is."""
    if is_signed(dtype):
        return -(1 << (n_bits - 1)), (1 << (n_bits - 1)) - 1
    return 0, (1 << n_bits) - 1


def symmetric_zero_point(dtype: torch.dtype, quant_min: int, quant_max: int) -> int:
    """Return the zero point of a symmetric scheme: 0 of signed integers, otherwise the middle; 128 of 8 bits."""
    if is_signed(dtype):
        return 0
    return 128 if (quant_min, quant_max) == (0, 255) else (quant_min + quant_max) // 2


def scale_and_zero_point(
    low: torch.Tensor, high: torch.Tensor, symmetric: bool, dtype: torch.dtype, quant_min: int, quant_max: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what maps a range, with zero in it, on integers.

    Parameters
    ----------
    low, high : torch.Tensor
        Of the same shape; where `low` is the larger one there is no range yet, and the scale is 1.
    symmetric : bool
        Whether the zero point is that of `symmetric_zero_point`.
    dtype : torch.dtype
    quant_min, quant_max : int

    Returns
    -------
    scale : torch.Tensor, float32
        At least the smallest difference of float32 numbers at 1.
    zero_point : torch.Tensor, int32
    """
    unknown = low > high
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = torch.maximum(-low, high) / (0.5 * (quant_max - quant_min))
    else:
        scale = (high - low) / (quant_max - quant_min)
    scale = torch.where(unknown, 1.0, scale.clamp(min=SMALLEST_SCALE))
    if symmetric:
        zero_point = torch.full_like(scale, symmetric_zero_point(dtype, quant_min, quant_max))
    else:
        zero_point = (quant_min - torch.round(torch.where(unknown, 0.0, low) / scale)).clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


def over_processes(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest low and the largest high of all processes of `torch.distributed`, in one exchange."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return low, high
    both = torch.stack((-low, high))
    distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
    return -both[0], both[1]


class MinMaxObserver(torch.nn.Module):
    """The range of the values that have passed.

    Parameters
    ----------
    dtype : torch.dtype
        ``torch.qint8`` or ``torch.quint8``; integers of fewer bits have the type of 8.
    qscheme : torch.qscheme
        Per tensor or per channel, symmetric or affine.
    quant_min, quant_max : int, optional
        All integers of 8 bits by default.
    ch_axis : int
        The axis of channels that have a range each; -1 is one range for all.
    averaging_constant : float, optional
        How far the range moves to that of new values: 0.01 is a moving average. None widens it to contain them.
    channels : int, optional
        How many channels there are, if that is known before the first values.

    Attributes
    ----------
    min_val, max_val : torch.Tensor, float32
        Infinite, the smaller one positive, before the first values.
    synchronize : bool
        Whether the ranges of new values are those of all processes of `torch.distributed`.
    """

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(
        self,
        dtype: torch.dtype = torch.quint8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        ch_axis: int = -1,
        averaging_constant: float | None = None,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        low, high = quantized_range(8, dtype)
        self.dtype = dtype
        self.qscheme = qscheme
        self.quant_min = low if quant_min is None else quant_min
        self.quant_max = high if quant_max is None else quant_max
        self.ch_axis = ch_axis
        self.averaging_constant = averaging_constant
        self.synchronize = True
        shape = () if channels is None or ch_axis == -1 else (channels,)
        self.register_buffer("min_val", torch.full(shape, float("inf")))
        self.register_buffer("max_val", torch.full(shape, float("-inf")))

    @property
    def observed(self) -> bool:
        """Whether values have passed."""
        return bool((self.min_val <= self.max_val).all())

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take the range of values into account, unless its width is not finite; return them as they are."""
        if x.numel() == 0:
            return x
        if self.ch_axis == -1:
            ends = torch.aminmax(x.detach())
        else:
            ends = torch.aminmax(x.detach().transpose(0, self.ch_axis).flatten(1), dim=1)
        low, high = (end.to(self.min_val.dtype) for end in ends)
        if self.synchronize:
            low, high = over_processes(low, high)
        if self.min_val.shape != low.shape:
            self.min_val, self.max_val = (each.expand_as(low).clone() for each in (self.min_val, self.max_val))
        finite = (high - low) < torch.inf  # not if one of them is NaN
        if self.averaging_constant is None:
            new_low, new_high = torch.minimum(self.min_val, low), torch.maximum(self.max_val, high)
        else:
            first = self.min_val > self.max_val
            new_low = torch.where(first, low, self.min_val.lerp(low, self.averaging_constant))
            new_high = torch.where(first, high, self.max_val.lerp(high, self.averaging_constant))
        self.min_val.copy_(torch.where(finite, new_low, self.min_val))
        self.max_val.copy_(torch.where(finite, new_high, self.max_val))
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scale (float32) and the zero point (int32) of the range."""
        return scale_and_zero_point(
            self.min_val, self.max_val, is_symmetric(self.qscheme), self.dtype, self.quant_min, self.quant_max
        )

    def extra_repr(self) -> str:
        return f"ch_axis={self.ch_axis}, averaging_constant={self.averaging_constant}"


class FixedObserver(torch.nn.Module):
    """The observer of values whose range is known, such as a sigmoid's.

    Parameters
    ----------
    scale : float
    zero_point : int
    """

    observed = True

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.dtype = torch.quint8
        self.qscheme = torch.per_tensor_affine
        self.quant_min, self.quant_max = 0, 255
        self.ch_axis = -1
        self.synchronize = False
        self.register_buffer("scale", torch.tensor([scale]), persistent=False)
        self.register_buffer("zero_point", torch.tensor([zero_point], dtype=torch.int32), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return values as they are."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scale (float32) and the zero point (int32)."""
        return cast(torch.Tensor, self.scale), cast(torch.Tensor, self.zero_point)
