"""Scales and zero points, under coremltools' names; `corepress.training.grids` has the rules."""

from __future__ import annotations

import torch
from torch import Tensor

from ....training.grids import NORMAL_FLOATS, normal_float_entries, scale_of_range

normal_float_palette = {n_bits: torch.tensor(entries) for n_bits, entries in NORMAL_FLOATS.items()}
_normal_float_palette = normal_float_palette  # coremltools' name


def quantize(x: Tensor, scale: Tensor, zero: Tensor, max_q: Tensor, enable_normal_float: bool) -> Tensor:
    """Round values to a grid.

    Parameters
    ----------
    x : torch.Tensor of floats
    scale, zero : torch.Tensor
        Broadcast to the values.
    max_q : torch.Tensor
        The largest code, 2 to the number of bits less 1.
    enable_normal_float : bool
        Round to a palette of normal floats instead of integers.
    """
    if not enable_normal_float:
        return scale * ((x / scale).round().add(zero).clamp(0, int(max_q)) - zero)
    entries = torch.from_numpy(normal_float_entries(int(max_q + 1).bit_length() - 1)).to(x.device)
    return scale * entries[torch.bucketize(x / scale, (entries[1:] + entries[:-1]) / 2)]


class Quantizer(torch.nn.Module):
    """Scales and zero points by the range of values.

    Parameters
    ----------
    n_bits : int
    per_channel : bool
        A scale for each channel; otherwise one for all.
    symmetric : bool
        The zero point is the middle of the codes.
    enable_normal_float : bool
        Values are rounded to a palette of normal floats.
    """

    max_q: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, n_bits: int, per_channel: bool = True, symmetric: bool = False, enable_normal_float: bool = False
    ) -> None:
        super().__init__()
        self._n_bits, self._per_channel, self._symmetric = n_bits, per_channel, symmetric
        self._enable_normal_float = enable_normal_float
        self.register_buffer("max_q", torch.tensor(2**n_bits - 1))
        self.register_buffer("scale", torch.zeros(1))
        self.register_buffer("zero_point", torch.zeros(1))

    def find_params(self, x: Tensor, weight: bool = False) -> None:
        """Find the scales of a weight, along axis 0, or of activations, along the last axis or that of channels.

        Parameters
        ----------
        x : torch.Tensor of floats
        weight : bool
            Whether it is a weight.
        """
        axis = 0 if weight else 1 if x.dim() == 4 else x.dim() - 1
        channels = x.shape[axis]
        rows = x.detach().movedim(axis, 0).reshape(channels if self._per_channel else 1, -1).float().cpu()
        low, high = rows.min(dim=1).values.numpy(), rows.max(dim=1).values.numpy()
        scale, zero_point = (
            torch.from_numpy(each).float() for each in scale_of_range(low, high, self._n_bits, self._symmetric)
        )
        if self._enable_normal_float:
            scale = rows.abs().max(dim=1).values
            scale[scale == 0] = 1
        shape = [channels if each == axis else 1 for each in range(x.dim())]
        self.scale, self.zero_point = (
            each.expand(channels).reshape(shape).to(x.device) for each in (scale, zero_point)
        )

    def quantize(self, x: Tensor) -> Tensor:
        """Round values to the grid; as they are, before it was found."""
        if not self.ready():
            return x
        return quantize(x, self.scale, self.zero_point, self.max_q, self._enable_normal_float)

    def enabled(self) -> bool:
        """Whether there is more than one code."""
        return bool(self.max_q > 0)

    def ready(self) -> bool:
        """Whether the scales were found."""
        return bool((self.scale != 0).all())
