"""Images and the arrays of their planes, in the order of colours that a model declares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError
from ..extras import require

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def channels_of(color: str) -> int:
    """The number of planes of an image."""
    return 3 if color in ("RGB", "BGR") else 1


def is_image(value: Any) -> bool:
    """Whether a value is an image of Pillow, which need not be installed."""
    return hasattr(value, "mode") and hasattr(value, "convert") and hasattr(value, "size")


def planes_of_image(where: str, color: str, value: Any) -> NDArray[np.float32]:
    """The planes of an image: a float32 array of shape (1, channels, height, width).

    Parameters
    ----------
    where : str
        What messages begin with.
    color : str
        The order of colours that the model declares.
    value : image or array
        An image of Pillow, or its pixels: an array of shape (height, width), or (height, width, 3) with red first.
    """
    mode = _MODES[color]
    if is_image(value):
        if value.mode != mode:
            raise TypeError(
                f"{where} is an image of mode {value.mode}, but must be {mode}; convert it with .convert({mode!r})"
            )
        pixels = np.asarray(value)
    elif isinstance(value, np.ndarray):
        pixels = _pixels(where, color, value)
    else:
        raise TypeError(f"{where} must be an image, not {type(value).__name__}")
    if mode == "F":
        pixels = pixels.astype(np.float16)
    if channels_of(color) == 1:
        return pixels[None, None].astype(np.float32)
    ordered = pixels[..., ::-1] if color == "BGR" else pixels
    return np.ascontiguousarray(ordered.transpose(2, 0, 1)[None], np.float32)


def _pixels(where: str, color: str, array: NDArray[Any]) -> NDArray[Any]:
    wanted = "(height, width, 3)" if channels_of(color) == 3 else "(height, width)"
    fits = array.ndim == 3 and array.shape[-1] == 3 if channels_of(color) == 3 else array.ndim == 2
    if not fits:
        raise ValueError(f"{where} has shape {array.shape}, but the pixels of a {color} image have {wanted}")
    if color != "GRAYSCALE_FLOAT16" and array.dtype != np.uint8:
        raise TypeError(f"{where} has dtype {array.dtype}, but the pixels of a {color} image are uint8")
    return array


def planes_of(name: str, value: NDArray[Any], channels: int) -> NDArray[Any]:
    """The planes of an output, of shape (channels, height, width).

    Raises
    ------
    FormatError
        If it has another shape.
    """
    shape = value.shape
    planes = value.reshape(shape[-3:]) if value.ndim > 3 and set(shape[:-3]) == {1} else value
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or planes.shape[0] != channels:
        raise FormatError(f"output {name!r} is an image of {channels} channels, but is computed with shape {shape}")
    return planes


def image_from_planes(color: str, planes: NDArray[Any], *, as_image: bool = True) -> Any:
    """An image as Core ML returns it, or an array of its pixels.

    Values are limited to 0 to 255 and rounded. Images with colours have mode RGBA, as coremltools returns them, and are
    opaque.

    Parameters
    ----------
    color : str
        The order of colours that the model declares.
    planes : numpy.ndarray
        Of shape (channels, height, width).
    as_image : bool
        Whether an image of Pillow is wanted, and not its pixels.
    """
    if color == "GRAYSCALE_FLOAT16":
        pixels: NDArray[Any] = planes[0].astype(np.float16).astype(np.float32)
    else:
        whole = np.rint(np.clip(np.nan_to_num(planes.astype(np.float32), nan=0.0), 0, 255)).astype(np.uint8)
        pixels = whole[0] if len(whole) == 1 else whole.transpose(1, 2, 0)
        pixels = pixels[..., ::-1] if color == "BGR" else pixels
    pixels = np.ascontiguousarray(pixels)
    if not as_image:
        return pixels
    require("predict", "PIL")
    from PIL import Image

    image = Image.fromarray(pixels)
    return image.convert("RGBA") if channels_of(color) == 3 else image
