"""Products with weights in float16, of which large ones are widened to float32 in parts.

Memory for a large weight in float32 would have to be found anew for each product, which takes longer than to widen it,
and a language model's output layer would need gigabytes. Parts that are much smaller would make threads wait for each
other more often than they compute.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_PART = 1 << 22  # elements: 16 MiB of float32
_ROWS = 16  # parts have a multiple of these, which kernels compute together


def widened(weight: Tensor) -> Tensor:
    """A weight as it is computed with: float16 as float32."""
    return weight.to(torch.float32) if weight.dtype is torch.float16 else weight


def by_outputs(
    compute: Callable[[Tensor, Tensor | None], Tensor], weight: Tensor, bias: Tensor | None, axis: int
) -> Tensor:
    """Compute a part of the outputs at a time.

    Parameters
    ----------
    compute : callable
        Given some rows of the weight as float32, and of the bias, returns the outputs of these rows.
    weight, bias : torch.Tensor
        The weight, whose axis 0 is that of the outputs, and the bias.
    axis : int
        The axis of the outputs in the result.
    """
    if bias is not None:
        bias = widened(bias)
    whole = (
        weight.dtype is not torch.float16
        or weight.numel() <= _PART
        or weight.device.type != "cpu"
        or torch.compiler.is_compiling()
        or (torch.is_grad_enabled() and weight.requires_grad)
    )
    if whole:
        return compute(widened(weight), bias)
    each = weight.numel() // weight.shape[0]
    rows = max(_ROWS, _PART // each // _ROWS * _ROWS)
    buffer = torch.empty(rows * each)
    results = []
    for start in range(0, weight.shape[0], rows):
        part = weight[start : start + rows]
        wide = buffer[: part.numel()].view(part.shape)
        wide.copy_(part)
        results.append(compute(wide, None if bias is None else bias[start : start + rows]))
    return torch.cat(results, axis)
