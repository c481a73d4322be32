"""Result shapes of each type of operation, from the shapes of its operands and its other arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Shape = tuple[int, ...]


def _same(x: Shape, **_: Any) -> Shape:
    return x


def _broadcast(x: Shape, y: Shape = (), **_: Any) -> Shape:
    return np.broadcast_shapes(x, y if isinstance(y, tuple) else ())


def _concat(values: Sequence[Shape], axis: int, **_: Any) -> Shape:
    shape = list(values[0])
    shape[axis] = sum(value[axis] for value in values)
    return tuple(shape)


def _conv(x: Shape, weight: Shape, strides: Sequence[int], pad: Sequence[int], **_: Any) -> Shape:
    image = (
        (size + 2 * margin - kernel) // stride + 1
        for size, margin, kernel, stride in zip(x[2:], pad[::2], weight[2:], strides, strict=True)
    )
    return (x[0], weight[0], *image)


def _expand_dims(x: Shape, axes: Sequence[int]) -> Shape:
    shape = list(x)
    for axis in axes:
        shape.insert(axis, 1)
    return tuple(shape)


def _linear(x: Shape, weight: Shape, **_: Any) -> Shape:
    return (*x[:-1], weight[0])


def _matmul(x: Shape, y: Shape, transpose_y: bool = False, **_: Any) -> Shape:
    return (*x[:-1], y[-2] if transpose_y else y[-1])


def _reduced(x: Shape, axes: Sequence[int], keep_dims: bool) -> Shape:
    if keep_dims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(x))
    return tuple(size for axis, size in enumerate(x) if axis not in axes)


def _reshape(x: Shape, shape: Sequence[int]) -> Shape:
    rest = math.prod(x) // math.prod(size for size in shape if size != -1)
    return tuple(rest if size == -1 else size for size in shape)


def _transpose(x: Shape, perm: Sequence[int]) -> Shape:
    return tuple(x[axis] for axis in perm)


def _upsample(x: Shape, scale_factor_height: int, scale_factor_width: int) -> Shape:
    return (*x[:2], x[2] * scale_factor_height, x[3] * scale_factor_width)


SHAPES: dict[str, Callable[..., Shape]] = {
    **dict.fromkeys(("cos", "gelu", "identity", "layer_norm", "relu", "rsqrt", "silu", "sin", "softmax"), _same),
    **dict.fromkeys(("add", "mul", "sub"), _broadcast),
    "concat": _concat,
    "conv": _conv,
    "expand_dims": _expand_dims,
    "linear": _linear,
    "matmul": _matmul,
    "reduce_mean": _reduced,
    "reshape": _reshape,
    "transpose": _transpose,
    "upsample_nearest_neighbor": _upsample,
}
