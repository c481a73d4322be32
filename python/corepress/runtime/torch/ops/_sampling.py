"""Values of images between their pixels.

Positions are indices along an axis, which the grids of Core ML's sampling modes make from sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..limits import limited

SAMPLING_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def grid(first: Tensor, last: Tensor, count: int, sampling_mode: str) -> Tensor:
    """Positions from pixel ``first`` to pixel ``last``: ``count`` of them on a new last axis.

    The aligned modes put samples on both ends. ``DEFAULT`` starts at ``first``, with a distance of the number of pixels
    over that of samples; ``UNALIGN_CORNERS`` has the same distance, and centers the samples; ``OFFSET_CORNERS`` centers
    them between the middles of the outermost pixels.
    """
    if count < 1:
        raise ValueError(f"target sizes must be positive, got {count}")
    steps = torch.arange(count, dtype=first.dtype, device=first.device)
    first, length = first.unsqueeze(-1), (last - first).unsqueeze(-1)
    if sampling_mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            return first + length / 2 if sampling_mode == "ALIGN_CORNERS" else first + 0 * length
        return first + steps * (length / (count - 1))
    if sampling_mode == "OFFSET_CORNERS":
        return first + (steps + 0.5) * (length.clamp(min=1) / count)
    pixels = torch.where(length < 0, length - 1, length + 1)
    if sampling_mode == "DEFAULT":
        travelled = steps * (pixels / count)
        return first + torch.where(length < 0, travelled.maximum(length), travelled.minimum(length))
    if sampling_mode == "UNALIGN_CORNERS":
        return first + (steps + 0.5) * (pixels / count) - 0.5 * pixels.sign()
    raise ValueError(f"sampling_mode must be one of {', '.join(SAMPLING_MODES)}, got {sampling_mode!r}")


@functools.lru_cache(maxsize=256)
def _positions(size: int, count: int, sampling_mode: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions along a whole axis: the pixels below them, and how far they are above those.

    Arrays, since tensors of an inference mode could not be used again where there are gradients.
    """
    first, last = torch.tensor(0.0, dtype=torch.float64), torch.tensor(float(size - 1), dtype=torch.float64)
    positions = grid(first, last, count, sampling_mode).clamp(0, size - 1).numpy()
    below = np.floor(positions)
    return below.astype(np.int64), (positions - below).astype(np.float32)


def _check_sizes(x: Tensor, sizes: Sequence[int]) -> None:
    if any(size < 1 for size in sizes):
        raise ValueError(f"sizes of a resized image must be positive, got {list(sizes)}")
    if 0 in x.shape[x.dim() - len(sizes) :]:
        raise ValueError(f"axes of an image to be resized must not be empty, got shape {list(x.shape)}")
    limited((*x.shape[: x.dim() - len(sizes)], *sizes))


def resized_linear(x: Tensor, sizes: Sequence[int], sampling_mode: str) -> Tensor:
    """The last axes with other sizes, by linear interpolation along each."""
    _check_sizes(x, sizes)
    x = x if x.is_floating_point() else x.to(torch.float32)
    kernels = {"STRICT_ALIGN_CORNERS": True, "UNALIGN_CORNERS": False}
    if 1 not in sizes:
        kernels["ALIGN_CORNERS"] = True
    if sampling_mode in kernels and len(sizes) == 2 and x.numel():
        images = x if x.dim() == 4 else x.reshape(1, -1, *x.shape[-2:])
        result = F.interpolate(images, list(sizes), mode="bilinear", align_corners=kernels[sampling_mode])
        return result if x.dim() == 4 else result.reshape(*x.shape[:-2], *sizes)
    for axis, count in enumerate(sizes, start=x.dim() - len(sizes)):
        size = x.shape[axis]
        if size == 1 or (size == count and sampling_mode != "OFFSET_CORNERS"):
            x = x.expand(*x.shape[:axis], count, *x.shape[axis + 1 :]) if size == 1 else x
            continue
        below, share = map(torch.from_numpy, _positions(size, count, sampling_mode))
        below, share = below.to(x.device), share.to(x.device, x.dtype).view((-1,) + (1,) * (x.dim() - axis - 1))
        above = (below + 1).clamp(max=size - 1)
        x = torch.lerp(x.index_select(axis, below), x.index_select(axis, above), share)
    return x


def resized_nearest(
    x: Tensor, sizes: Sequence[int], *, half_pixel_centers: bool, sampling_mode: str = "DEFAULT"
) -> Tensor:
    """The last axes with other sizes, whose elements are those of the input."""
    _check_sizes(x, sizes)
    if len(sizes) == 2 and x.dim() == 4 and sampling_mode == "DEFAULT" and x.is_floating_point():
        height, width = x.shape[2:]
        # PyTorch's kernel multiplies indices by an inexact inverse of other factors.
        if all(each in (1, 2, 4, 8) for each in (sizes[0] / height, sizes[1] / width)):
            return F.interpolate(x, sizes, mode="nearest")
    axes = range(x.dim() - len(sizes), x.dim())
    for axis, count in zip(axes, sizes, strict=True):
        size = x.shape[axis]
        if sampling_mode != "DEFAULT":
            below, share = map(torch.from_numpy, _positions(size, count, sampling_mode))
            indices = (below + (share > 0.5)).clamp(max=size - 1).to(x.device)
        elif size == count:
            continue
        elif half_pixel_centers:
            indices = (2 * torch.arange(count, device=x.device) + 1) * size // (2 * count)
        else:
            indices = torch.arange(count, device=x.device) * size // count
        x = x.index_select(axis, indices)
    return x


def _mirrored(positions: Tensor, lowest: float, highest: float) -> Tensor:
    """Positions reflected at both ends until they lie between them."""
    length = highest - lowest
    if length <= 0:
        return torch.zeros_like(positions) + lowest
    from_lowest = (positions - lowest).remainder(2 * length)
    return lowest + torch.minimum(from_lowest, 2 * length - from_lowest)


def _pixels(coordinates: Tensor, size: int, coordinates_mode: str, align_corners: bool) -> Tensor:
    """Coordinates as positions."""
    if coordinates_mode == "unnormalized":
        return coordinates
    if coordinates_mode == "normalized_minus_one_to_one":
        coordinates = (coordinates + 1) / 2
    elif coordinates_mode != "normalized_zero_to_one":
        raise ValueError(
            "coordinates_mode must be unnormalized, normalized_minus_one_to_one or normalized_zero_to_one, "
            f"got {coordinates_mode!r}"
        )
    return coordinates * (size - 1) if align_corners else coordinates * size - 0.5


def _bring_inside(positions: Tensor, size: int, padding_mode: str) -> Tensor:
    if padding_mode == "reflection":
        positions = _mirrored(positions, 0, size - 1)
    elif padding_mode == "symmetric":
        positions = _mirrored(positions, -0.5, size - 0.5)
    elif padding_mode == "constant":
        return positions
    elif padding_mode != "border":
        raise ValueError(f"padding_mode must be constant, border, reflection or symmetric, got {padding_mode!r}")
    return positions.clamp(0, size - 1)


def _taps(rows: Tensor, columns: Tensor, bilinear: bool) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Rows, columns and shares of the pixels that make samples."""
    if not bilinear:
        return [(rows.round(), columns.round(), None)]
    top, left = rows.floor(), columns.floor()
    down, right = rows - top, columns - left
    return [
        (top, left, (1 - down) * (1 - right)),
        (top, left + 1, (1 - down) * right),
        (top + 1, left, down * (1 - right)),
        (top + 1, left + 1, down * right),
    ]


def sampled(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """Images ``[batch, channels, height, width]`` at the coordinates ``[batch, rows, columns, (x, y)]``."""
    sampling_mode, padding_mode, coordinates_mode = (
        each.lower() for each in (sampling_mode, padding_mode, coordinates_mode)
    )
    if x.dim() != 4 or coordinates.dim() != 4 or coordinates.shape[-1] != 2:
        raise ValueError(
            f"x must have rank 4 and coordinates shape [B, H, W, 2], got {list(x.shape)}, {list(coordinates.shape)}"
        )
    if sampling_mode not in ("bilinear", "nearest"):
        raise ValueError(f"sampling_mode must be bilinear or nearest, got {sampling_mode!r}")
    limited((*x.shape[:2], *coordinates.shape[1:3]))
    coordinates = coordinates.to(x.dtype)
    if coordinates_mode == "normalized_minus_one_to_one" and x.numel():
        of_pytorch = {"border": "border", "symmetric" if not align_corners else "reflection": "reflection"}
        if padding_value == 0:
            of_pytorch["constant"] = "zeros"
        if padding_mode in of_pytorch:
            return F.grid_sample(x, coordinates, sampling_mode, of_pytorch[padding_mode], align_corners)
    height, width = x.shape[2:]
    rows = _bring_inside(_pixels(coordinates[..., 1], height, coordinates_mode, align_corners), height, padding_mode)
    columns = _bring_inside(_pixels(coordinates[..., 0], width, coordinates_mode, align_corners), width, padding_mode)
    images = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    result: Tensor | float = 0.0
    for row, column, share in _taps(rows, columns, sampling_mode == "bilinear"):
        values = x[images, :, row.long().clamp(0, height - 1), column.long().clamp(0, width - 1)].permute(0, 3, 1, 2)
        if padding_mode == "constant":
            outside = (row < 0) | (row > height - 1) | (column < 0) | (column > width - 1)
            values = values.masked_fill(outside.unsqueeze(1), padding_value)
        result = values if share is None else result + values * share.unsqueeze(1)
    assert isinstance(result, Tensor)
    return result


@dataclass(frozen=True)
class Boxes:
    """How boxes are cut from images and brought to one size.

    Attributes
    ----------
    target : tuple of int
        The height and width of each result.
    normalized : bool
        Whether coordinates are shares of the image.
    spatial_scale : float
        A factor of all coordinates.
    coordinates : str
        What the four numbers of a box are.
    sampling_mode : str
        The grid of samples in a box.
    pad_value : float
        What is outside of the image.
    """

    target: tuple[int, int]
    normalized: bool
    spatial_scale: float
    coordinates: str
    sampling_mode: str
    pad_value: float = 0.0

    def sample(self, x: Tensor, boxes: Tensor, images: Tensor) -> Tensor:
        """Boxes ``[N, 4]`` of the images of these indices, as ``[N, channels, height, width]``."""
        if x.dim() != 4:
            raise ValueError(f"x must have rank 4, got {x.dim()}")
        limited((len(boxes), x.shape[1], *self.target))
        images = images.long().clamp(0, len(x) - 1).view(-1, 1, 1)
        ends = self._ends(boxes.to(x.dtype) * self.spatial_scale)
        rows, columns = (
            self._positions(first, last, size, count)
            for (first, last), size, count in zip(ends, x.shape[2:], self.target, strict=True)
        )
        rows, columns = rows.unsqueeze(2), columns.unsqueeze(1)
        mirrors = self.sampling_mode == "UNALIGN_CORNERS"
        inside = torch.ones((), dtype=torch.bool, device=x.device)
        limits = []
        for positions, size in ((rows, x.shape[2]), (columns, x.shape[3])):
            if mirrors:
                limits.append(_mirrored(positions, -0.5, size - 0.5).clamp(0, size - 1))
                continue
            # Ends of boxes are often computed: those of the image itself belong to it in spite of their rounding.
            inside = inside & (positions > -1e-4) & (positions < size - 1 + 1e-4)
            limits.append(positions.clamp(0, size - 1))
        result: Tensor | float = 0.0
        for row, column, share in _taps(limits[0], limits[1], True):
            row, column = row.long().clamp(max=x.shape[2] - 1), column.long().clamp(max=x.shape[3] - 1)
            assert share is not None
            result = result + x[images, :, row, column] * share.unsqueeze(3)
        assert isinstance(result, Tensor)
        if not mirrors:
            result = result.masked_fill(~inside.unsqueeze(3), self.pad_value)
        return result.permute(0, 3, 1, 2)

    def _ends(self, boxes: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The first and last coordinates of rows and of columns."""
        a, b, c, d = boxes.unbind(1)
        shape, _, order = self.coordinates.rpartition("_FIRST")[0].rpartition("_")
        if shape not in ("CORNERS", "CENTER_SIZE") or order not in ("HEIGHT", "WIDTH"):
            raise ValueError(
                "box_coordinate_mode must be CORNERS or CENTER_SIZE with _HEIGHT_FIRST or _WIDTH_FIRST, "
                f"got {self.coordinates!r}"
            )
        if order == "WIDTH":
            a, b, c, d = b, a, d, c
        if shape == "CORNERS":
            return (a, c), (b, d)
        return (a - c / 2, a + c / 2), (b - d / 2, b + d / 2)

    def _positions(self, first: Tensor, last: Tensor, size: int, count: int) -> Tensor:
        if self.normalized and self.sampling_mode == "UNALIGN_CORNERS":
            # Shares of an image of pixels with edges; the ends of others are the middles of pixels.
            step = (last - first) * (size / count)
            steps = torch.arange(count, dtype=first.dtype, device=first.device)
            return (first * size - 0.5).unsqueeze(-1) + (steps + 0.5) * step.unsqueeze(-1)
        scale = size - 1 if self.normalized else 1
        return grid(first * scale, last * scale, count, self.sampling_mode)
