"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .registry import Given, Run, layer, operation
from .shapes import batched


def border(amounts: Any) -> list[int]:
    """Top, bottom, left and right of a ``BorderAmounts``; 0 where it has none."""
    edges = list(amounts.borderAmounts)
    if len(edges) not in (0, 2):
        raise ValueError(f"borderAmounts must have two entries, not {len(edges)}")
    return [int(size) for edge in edges for size in (edge.startEdgeSize, edge.endEdgeSize)] or [0, 0, 0, 0]


def pair(values: Sequence[int], default: int) -> list[int]:
    """Two sizes, of height and width."""
    if len(values) not in (0, 2):
        raise ValueError(f"sizes of height and width must be two numbers, not {list(values)}")
    return [int(value) for value in values] or [default, default]


def padding_of(params: Any, kind: str | None) -> dict[str, Any]:
    """Options of an operation from the oneof of a layer's padding."""
    if kind == "same":
        return {"pad_type": "same_lower" if params.same.asymmetryMode == 1 else "same"}
    pad = border(params.valid.paddingAmounts)
    return {"pad_type": "custom", "pad": pad} if any(pad) else {"pad_type": "valid"}


@layer("convolution")
def convolution(given: Given) -> Run:
    """Of the last two axes; the weights may be the second input."""
    params = given.params
    options = {
        "strides": pair(params.stride, 1),
        "dilations": pair(params.dilationFactor, 1),
        "groups": int(params.nGroups) or 1,
    }
    padding = padding_of(params, params.WhichOneof("ConvolutionPaddingType"))
    if params.isDeconvolution:
        return _deconvolution(given, [int(size) for size in params.outputShape], padding, options)
    compute = operation("conv")
    options |= padding
    if given.inputs == 2:
        return lambda x, weights, *, bias=None: batched(lambda each: compute(each, weights, bias, **options), x)
    return lambda x, *, weights, bias=None: batched(lambda each: compute(each, weights, bias, **options), x)


@layer("convolution3d")
def convolution3d(given: Given) -> Run:
    """Of the last three axes of a tensor of rank 5."""
    params = given.params
    axes = ("Depth", "Height", "Width")
    options = {
        "strides": [getattr(params, f"stride{axis}") or 1 for axis in axes],
        "dilations": [getattr(params, f"dilation{axis}") or 1 for axis in axes],
        "groups": params.nGroups or 1,
    }
    padding = padding_3d(params)
    if params.isDeconvolution:
        return _deconvolution(given, [int(size) for size in params.outputShape], padding, options)
    compute = operation("conv")
    options |= padding
    return lambda x, *, weights, bias=None: compute(x, weights, bias, **options)


def padding_3d(params: Any) -> dict[str, Any]:
    """Options of an operation from the padding of a layer with three spatial axes."""
    if params.paddingType:
        return {"pad_type": ("", "valid", "same")[params.paddingType]}
    edges = ("Front", "Back", "Top", "Bottom", "Left", "Right")
    return {"pad_type": "custom", "pad": [getattr(params, f"customPadding{edge}") for edge in edges]}


def _deconvolution(given: Given, output_size: list[int], padding: dict[str, Any], options: dict[str, Any]) -> Run:
    """A transposed convolution; the size of its output, if given, decides how much is cropped at the end."""
    compute, outputs = operation("conv_transpose"), int(given.params.outputChannels)
    trailing = 3 if given.layer_type == "convolution" else 4
    top_left_heavy = padding["pad_type"] == "same_lower"
    if top_left_heavy:
        padding = {"pad_type": "same"}

    def run(x: Tensor, *, weights: Tensor, bias: Tensor | None = None) -> Tensor:
        def one(each: Tensor) -> Tensor:
            chosen = padding
            if output_size:
                chosen = {**padding, "output_shape": [each.shape[0], outputs, *output_size]}
            elif top_left_heavy:
                chosen = _cropping(weights.shape[2:], options) or padding
            result: Tensor = compute(each, weights, bias, **options, **chosen)
            return result

        return batched(one, x, trailing)

    return run


def _cropping(kernel: Sequence[int], options: dict[str, Any]) -> dict[str, Any] | None:
    """The padding of a transposed convolution that crops more at the start; None if there is nothing to crop."""
    axes = zip(kernel, options["dilations"], options["strides"], strict=True)
    excess = [(size - 1) * dilation + 1 - stride for size, dilation, stride in axes]
    if min(excess) < 0:
        return None
    return {"pad_type": "custom", "pad": [part for size in excess for part in (size - size // 2, size // 2)]}
