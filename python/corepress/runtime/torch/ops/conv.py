"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..dtypes import widened
from ..limits import limited
from ..registry import implements
from ._weights import by_outputs
from .windows import last_axis_first, limit_padded, pads_of

_CONVOLUTIONS: dict[int, Callable[..., Any]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Any]] = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def _of_rank(functions: dict[int, Callable[..., Any]], x: Tensor) -> Callable[..., Any]:
    function = functions.get(x.dim())
    if function is None:
        raise ValueError(f"x must have rank 3, 4 or 5, got {x.dim()}")
    return function


@implements("conv", stored_weights=True)
def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """``pad`` counts for ``pad_type="custom"`` only; with ``same`` the odd pixel is added after an axis."""
    function = _of_rank(_CONVOLUTIONS, x)
    padding: Sequence[int] | int = 0
    if pad_type == "custom" and pad and pad[::2] == pad[1::2]:
        padding = pad[::2]
    elif pad_type != "valid":
        before, after = pads_of(pad_type, pad, x.shape[2:], weight.shape[2:], strides, dilations)
        if before == after:
            padding = before
        else:
            limit_padded(x, weight.shape[0], before, after)
            x = F.pad(x, last_axis_first(before, after))
    limit_padded(x, weight.shape[0], padding, padding)
    if groups != 1:
        added = None if bias is None else widened(bias)
        result: Tensor = function(x, widened(weight), added, strides or 1, padding, dilations or 1, groups)
        return result

    def compute(part: Tensor, its_bias: Tensor | None) -> Tensor:
        outputs: Tensor = function(x, part, its_bias, strides or 1, padding, dilations or 1)
        return outputs

    return by_outputs(compute, weight, bias, 1)


@implements("conv_quantized")
def conv_quantized(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    quant_scale: Tensor | None = None,
    quant_bias: Tensor | None = None,
    *,
    quantization_type: str,
    nbits: int = 8,
    strides: Sequence[int] | None = None,
    pad_type: str = "valid",
    pad: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """Its weights are ``weight * quant_scale + quant_bias``, both one number or one of each output channel.

    The operation has no input that holds a table, so that only ``quantization_type="linear"`` is defined.
    """
    if quantization_type != "linear":
        raise ValueError(f"quantization_type must be linear, as no input holds a table, got {quantization_type!r}")
    shape = (-1,) + (1,) * (weight.dim() - 1)
    dense = weight.to(x.dtype)
    if quant_scale is not None:
        dense = dense * (quant_scale.view(shape) if quant_scale.numel() > 1 else quant_scale.reshape(()))
    if quant_bias is not None:
        dense = dense + (quant_bias.view(shape) if quant_bias.numel() > 1 else quant_bias.reshape(()))
    added = None if bias is None else bias.to(x.dtype)
    return conv(x, dense, added, strides=strides, pad_type=pad_type, pad=pad, dilations=dilations, groups=groups)


@implements("conv_transpose")
def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    pad: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pad_type: str = "valid",
    strides: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    groups: int = 1,
) -> Tensor:
    """The full result, cropped at both ends by ``pad``; with ``same``, to the size of ``x`` times the stride.

    ``output_shape``, of all axes, decides where the result ends. Where it ends behind the full result, zeros follow
    (and the bias, which is added last).
    """
    function = _of_rank(_TRANSPOSED, x)
    spatial = x.dim() - 2
    strides = strides or [1] * spatial
    dilations = dilations or [1] * spatial
    kernel, sizes = weight.shape[2:], x.shape[2:]
    full = [(sizes[i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(spatial)]
    limited((x.shape[0], groups * weight.shape[1], *(max(each, 0) for each in full)))
    symmetric = pad_type == "custom" and pad and pad[::2] == pad[1::2]
    if output_shape is None and (symmetric or pad_type == "valid"):
        padding = pad[::2] if symmetric and pad else 0
        result: Tensor = function(x, weight, bias, strides, padding, 0, groups, dilations)
        return result
    before, after = [0] * spatial, [0] * spatial
    if pad_type == "custom":
        before, after = pads_of(pad_type, pad, sizes, kernel, strides)
    elif pad_type not in ("valid", "same"):
        raise ValueError(f"pad_type must be valid, custom or same, got {pad_type!r}")
    wanted = [full[i] - before[i] - after[i] for i in range(spatial)]
    if output_shape is not None:
        wanted = list(output_shape[-spatial:])
    elif pad_type == "same":
        wanted = [sizes[i] * strides[i] for i in range(spatial)]
    limited((x.shape[0], groups * weight.shape[1], *wanted))
    if pad_type == "same":
        before = [max(full[i] - wanted[i], 0) // 2 for i in range(spatial)]
    beyond = [wanted[i] - (full[i] - 2 * before[i]) for i in range(spatial)]
    if all(0 <= each < max(strides[i], dilations[i]) for i, each in enumerate(beyond)):
        result = function(x, weight, bias, strides, before, beyond, groups, dilations)
        return result
    result = function(x, weight, None, strides, 0, 0, groups, dilations)
    after = [full[i] - before[i] - wanted[i] for i in range(spatial)]
    result = F.pad(result, last_axis_first([-each for each in before], [-each for each in after]))
    return result if bias is None else torch.add(result, bias.view((-1,) + (1,) * spatial))
