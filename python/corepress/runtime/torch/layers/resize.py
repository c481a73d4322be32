"""Changes of the size of images."""

from __future__ import annotations

import math

from torch import Tensor

from .conv import pair
from .registry import Given, Run, layer, operation
from .shapes import limited, require_rank

_SAMPLING = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")
_UPSAMPLING = ("DEFAULT", "STRICT_ALIGN_CORNERS", "UNALIGN_CORNERS")
_BOXES = ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST")


@layer("upsample")
def upsample(given: Given) -> Run:
    """By factors, to the next smaller size where they are fractional."""
    params = given.params
    factors = list(params.fractionalScalingFactor) or pair(params.scalingFactor, 1)
    if len(factors) != 2:
        raise ValueError(f"scaling factors must be two numbers, not {factors}")
    across, down = (1.0 if factor == 0 else factor for factor in reversed(factors))
    if params.mode == 0:
        compute, options = operation("resize_nearest_neighbor"), {}
    else:
        compute, options = operation("resize_bilinear"), {"sampling_mode": _UPSAMPLING[params.linearUpsampleMode]}

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        height, width = math.floor(x.shape[-2] * down), math.floor(x.shape[-1] * across)
        limited((*x.shape[:-2], height, width))
        return _by_operation(
            x, lambda each: compute(each, target_size_height=height, target_size_width=width, **options)
        )

    return run


def _by_operation(x: Tensor, compute: Run) -> Tensor:
    """The result of an operation that takes tensors of rank 3 to 5."""
    if x.dim() <= 5:
        result: Tensor = compute(x)
        return result
    result = compute(x.flatten(0, -4))
    return result.reshape(*x.shape[:-3], *result.shape[1:])


@layer("resizeBilinear")
def resize_bilinear(given: Given) -> Run:
    """To a given size."""
    height, width = pair(given.params.targetSize, 1)
    compute, mode = operation("resize_bilinear"), _SAMPLING[given.params.mode.samplingMethod]

    def run(x: Tensor) -> Tensor:
        require_rank(x, 3)
        limited((*x.shape[:-2], height, width))
        return _by_operation(
            x, lambda each: compute(each, target_size_height=height, target_size_width=width, sampling_mode=mode)
        )

    return run


@layer("cropResize")
def crop_resize(given: Given) -> Run:
    """Regions of images of shape (1, batch, channels, height, width), each resized to a given size."""
    params = given.params
    height, width = pair(params.targetSize, 1)
    compute = operation("crop_resize")
    options = {
        "target_height": height,
        "target_width": width,
        "normalized_coordinates": params.normalizedCoordinates,
        "spatial_scale": params.spatialScale or 1.0,
        "box_coordinate_mode": _BOXES[params.boxIndicesMode.boxMode],
        "sampling_mode": _SAMPLING[params.mode.samplingMethod],
    }

    def run(x: Tensor, boxes: Tensor) -> Tensor:
        if x.dim() != 5 or x.shape[0] != 1:
            raise ValueError(
                f"its first input must have shape (1, batch, channels, height, width), not {tuple(x.shape)}"
            )
        limited((boxes.shape[0], *x.shape[1:3], height, width))
        result: Tensor = compute(x[0], boxes, **options)
        return result

    return run
