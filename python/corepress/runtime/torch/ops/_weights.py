"""Products with weights in float16, which are widened to float32 a part at a time, always in the same memory.

New memory for each weight takes longer to get than it takes to widen the weight, and a language model's output layer
would need gigabytes. Parts that are much smaller would make threads wait for each other more often than they compute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

from ..dtypes import widened

_PART = 1 << 19  # elements for each thread: 2 MiB of float32, which stay in its cache
_SMALL = 1 << 16  # for which memory is found at once
_ROWS = 16  # parts have a multiple of these, which kernels compute together
_memory = threading.local()


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
    if (
        weight.dtype is not torch.float16
        or weight.numel() <= _SMALL
        or torch.is_grad_enabled()  # which keeps weights for later
        or weight.device.type != "cpu"
        or torch.compiler.is_compiling()
    ):
        return compute(widened(weight), bias)
    each = weight.numel() // max(1, weight.shape[0])
    rows = max(_ROWS, _PART * torch.get_num_threads() // max(1, each) // _ROWS * _ROWS)
    if weight.shape[0] <= rows:
        return compute(_in_scratch(weight), bias)
    results = []
    for start in range(0, weight.shape[0], rows):
        part = _in_scratch(weight[start : start + rows])
        results.append(compute(part, None if bias is None else bias[start : start + rows]))
    return torch.cat(results, axis)


def _in_scratch(weight: Tensor) -> Tensor:
    """A weight as float32, in memory of this thread that the next one is written to."""
    scratch = getattr(_memory, "scratch", None)
    if scratch is None or scratch.numel() < weight.numel():
        with torch.inference_mode(False):  # in whose tensors nothing else could be written
            scratch = _memory.scratch = torch.empty(max(weight.numel(), _PART))
    return scratch[: weight.numel()].view(weight.shape).copy_(weight)
