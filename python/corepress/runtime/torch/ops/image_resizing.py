"""Resizing, cropping and resampling of images, whose axes are the last two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....coreml.format.versions import IOS16, IOS17
from ..limits import limited
from ..registry import implements
from ._sampling import Boxes, resized_linear, resized_nearest, sampled


def _scaled(size: int, factor: float) -> int:
    """``floor(size * factor)`` in float32, as the sizes in programs are computed."""
    return size * factor if isinstance(factor, int) else int(np.floor(np.float32(size) * np.float32(factor)))


def _check_image(x: Tensor) -> None:
    if x.dim() < 3:
        raise ValueError(f"x must have rank 3 or more, got {x.dim()}")


@implements("crop", exact=True)
def crop(x: Tensor, *, crop_height: Sequence[int], crop_width: Sequence[int]) -> Tensor:
    """Cuts rows and columns off, ``[at the beginning, at the end]``."""
    _check_image(x)
    height, width = x.shape[-2:]
    return x[..., crop_height[0] : height - crop_height[1], crop_width[0] : width - crop_width[1]]


@implements("resize_nearest_neighbor", exact=True)
def resize_nearest_neighbor(x: Tensor, *, target_size_height: int, target_size_width: int) -> Tensor:
    """Element i of m is element ``floor((i + 0.5) n / m)`` of n."""
    _check_image(x)
    return resized_nearest(x, (target_size_height, target_size_width), half_pixel_centers=True)


@implements("upsample_nearest_neighbor", exact=True)
def upsample_nearest_neighbor(x: Tensor, *, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Tensor:
    """Element i of m is element ``floor(i n / m)`` of n; ``m = floor(n * scale_factor)``."""
    _check_image(x)
    sizes = _scaled(x.shape[-2], scale_factor_height), _scaled(x.shape[-1], scale_factor_width)
    return resized_nearest(x, sizes, half_pixel_centers=False)


@implements("resize_bilinear")
def resize_bilinear(
    x: Tensor, *, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Tensor:
    _check_image(x)
    return resized_linear(x, (target_size_height, target_size_width), sampling_mode)


def _upsample_bilinear(x: Tensor, factors: tuple[float, float], align_corners: bool, half_pixel: bool) -> Tensor:
    _check_image(x)
    if align_corners and half_pixel:
        raise ValueError("half_pixel_centers must be false where align_corners is true, got true")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half_pixel else "DEFAULT"
    return resized_linear(x, (_scaled(x.shape[-2], factors[0]), _scaled(x.shape[-1], factors[1])), mode)


@implements("upsample_bilinear")
def upsample_bilinear(
    x: Tensor, *, scale_factor_height: float = 1, scale_factor_width: float = 1, align_corners: bool = True
) -> Tensor:
    """The distance of samples follows from the sizes, ``floor(n * scale_factor)``, not from the factors."""
    return _upsample_bilinear(x, (scale_factor_height, scale_factor_width), align_corners, not align_corners)


@implements("upsample_bilinear", since=IOS16)
def upsample_bilinear_ios16(
    x: Tensor,
    *,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """With ``half_pixel_centers`` in addition, which is the opposite of ``align_corners`` by default."""
    half_pixel = not align_corners if half_pixel_centers is None else half_pixel_centers
    return _upsample_bilinear(x, (scale_factor_height, scale_factor_width), align_corners, half_pixel)


@implements("resize", since=IOS17)
def resize(
    x: Tensor,
    *,
    shape: Sequence[int],
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Resizes the last ``resized_dims`` axes to the last numbers of ``shape``, of which 0 keeps a size.

    ``NEAREST_NEIGHBOR`` takes the element at ``floor((i + 0.5) n / m)`` in the default mode, as
    ``resize_nearest_neighbor`` does, and the one nearest to the position of the sample in all others.
    """
    count = int(resized_dims)
    if not 0 <= count <= min(len(shape), x.dim()):
        raise ValueError(f"resized_dims must be at most {min(len(shape), x.dim())}, got {count}")
    first = x.dim() - count
    sizes = [int(each) or x.shape[first + axis] for axis, each in enumerate(shape[len(shape) - count :])]
    if interpolation_mode == "LINEAR":
        return resized_linear(x, sizes, sampling_mode)
    if interpolation_mode != "NEAREST_NEIGHBOR":
        raise ValueError(f"interpolation_mode must be LINEAR or NEAREST_NEIGHBOR, got {interpolation_mode!r}")
    return resized_nearest(x, sizes, half_pixel_centers=True, sampling_mode=sampling_mode)


@implements("affine")
def affine(
    x: Tensor,
    transform_matrix: Tensor,
    *,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Samples ``x`` at ``(a0 x + a1 y + a2, b0 x + b1 y + b2)`` for each place of the output.

    ``transform_matrix`` has one row ``[a0, a1, a2, b0, b1, b2]``, or one for each image.
    """
    if coordinates_mode.lower() != "normalized_minus_one_to_one":
        raise ValueError(f"coordinates_mode must be normalized_minus_one_to_one, got {coordinates_mode!r}")
    matrices = transform_matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    limited((x.shape[0], max(x.shape[1], 2), output_height, output_width))
    grid = F.affine_grid(matrices, [*x.shape[:2], output_height, output_width], align_corners)
    return sampled(x, grid, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)


@implements("resample")
def resample(
    x: Tensor,
    coordinates: Tensor,
    *,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Samples ``x`` at ``coordinates``, ``[batch, height, width, (x, y)]``.

    Outside of the image ``reflection`` mirrors at the centers of the outermost pixels, ``symmetric`` at their edges.
    """
    return sampled(x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners)


def _crop_resize_rois(x: Tensor, roi: Tensor, boxes: Boxes) -> Tensor:
    if roi.dim() != 5 or roi.shape[2] not in (4, 5):
        raise ValueError(f"roi must have shape [N, 1, 4 or 5, 1, 1], got {list(roi.shape)}")
    rows = roi.reshape(len(roi), -1)
    if rows.shape[1] == 5:
        return boxes.sample(x, rows[:, 1:], rows[:, 0]).unsqueeze(1)
    count, batch = len(rows), x.shape[0]
    limited((count, batch, x.shape[1], *boxes.target))
    images = torch.arange(batch, device=x.device).repeat(count)
    return boxes.sample(x, rows.repeat_interleave(batch, 0), images).reshape(count, batch, x.shape[1], *boxes.target)


@implements("crop_resize")
def crop_resize(
    x: Tensor,
    roi: Tensor,
    *,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """Boxes with five numbers begin with the index of their image; those with four are cut from all images.

    Samples outside of the image are zero, except with ``UNALIGN_CORNERS``, which mirrors the image at its edges.
    """
    boxes = Boxes(
        (target_height, target_width), normalized_coordinates, spatial_scale, box_coordinate_mode, sampling_mode
    )
    return _crop_resize_rois(x, roi, boxes)


@implements("crop_resize", since=IOS16)
def crop_resize_ios16(
    x: Tensor,
    roi: Tensor,
    *,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """Samples outside of the image are ``pad_value``, except with ``UNALIGN_CORNERS``."""
    boxes = Boxes(
        (target_height, target_width),
        normalized_coordinates,
        spatial_scale,
        box_coordinate_mode,
        sampling_mode,
        pad_value,
    )
    return _crop_resize_rois(x, roi, boxes)


@implements("crop_resize", since=IOS17)
def crop_resize_ios17(
    x: Tensor,
    boxes: Tensor,
    box_indices: Tensor | None = None,
    *,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Tensor:
    """One box of four numbers for each result; ``box_indices`` are their images, which are 0, 1, 2... by default."""
    images = torch.arange(len(boxes), device=x.device) if box_indices is None else box_indices
    cut = Boxes(
        (target_height, target_width),
        normalized_coordinates,
        spatial_scale,
        box_coordinate_mode,
        sampling_mode,
        pad_value,
    )
    return cut.sample(x, boxes, images)
