"""What callers give becomes a contiguous float array; which axis is grouped becomes a layout for the kernels."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _core
from .errors import NonFiniteError


def as_weight(verb: str, weight: Any) -> NDArray[Any]:
    """Return `weight` as a C-contiguous, native-endian float16 or float32 array, copied only where it must be.

    Parameters
    ----------
    verb : str
        The caller's name, for messages.
    weight : array_like
        A NumPy array, or an object with ``__array__``, the buffer protocol or DLPack on the CPU. float64 is narrowed
        to float32, to nearest even.

    Raises
    ------
    TypeError
        If the elements are not float16, float32 or float64.
    ValueError
        If a finite float64 value is infinite as float32.
    """
    if not isinstance(weight, np.ndarray):
        if hasattr(weight, "__dlpack__") and not hasattr(weight, "__array__"):
            weight = np.from_dlpack(weight)
        else:
            weight = np.asarray(weight)
    if weight.dtype == np.float64:
        with np.errstate(over="ignore"):
            narrowed = weight.astype(np.float32)
        if np.isinf(narrowed).sum() != np.isinf(weight).sum():
            raise ValueError(f"{verb}: float64 values beyond {np.finfo(np.float32).max:.4g} do not fit float32")
        weight = narrowed
    if weight.dtype.kind != "f" or weight.dtype.itemsize not in (2, 4):
        raise TypeError(f"{verb}: weight must be float16, float32 or float64, not {weight.dtype}")
    native: NDArray[Any] = weight.astype(weight.dtype.newbyteorder("="), copy=False)
    return native if native.flags.c_contiguous else native.copy(order="C")


def as_finite_weight(verb: str, weight: Any, num_threads: int | None) -> NDArray[Any]:
    """Do what `as_weight` does, and raise NonFiniteError if there are NaN or infinite values."""
    array = as_weight(verb, weight)
    count = _core.count_nonfinite(array, num_threads)
    if count:
        raise NonFiniteError(f"{verb}: {count} of {array.size} values are NaN or infinite (shape {array.shape})")
    return array


def group_layout(shape: tuple[int, ...], group_counts: tuple[int, ...]) -> _core.Layout:
    """Describe a row-major tensor, divided into groups along its axes, as (outer, groups, run).

    Element ``(o, g, r)`` of that view belongs to group ``g``. This covers one grouped axis, and several of which all
    but the last have one group per entry and nothing ungrouped stands between them.

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensor.
    group_counts : tuple of int
        Number of groups along each axis; each divides the axis.
    """
    layout = find_group_layout(shape, group_counts)
    if layout is None:
        raise ValueError(f"group_layout: groups {group_counts} of shape {shape} do not form (outer, groups, run)")
    return layout


def find_group_layout(shape: tuple[int, ...], group_counts: tuple[int, ...]) -> _core.Layout | None:
    """Do what `group_layout` does; None for other groups."""
    grouped = [axis for axis, groups in enumerate(group_counts) if groups > 1]
    if not grouped:
        return (1, 1, prod(shape))
    first, last = grouped[0], grouped[-1]
    if any(shape[axis] != group_counts[axis] for axis in range(first, last)):
        return None
    groups = prod(group_counts)
    outer = prod(shape[:first])
    return (outer, groups, prod(shape) // (outer * groups))


def axis_layout(shape: tuple[int, ...], axis: int) -> _core.Layout:
    """Describe a row-major tensor as (outer, length of one axis, run); no axis may be empty."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def block_layout(shape: tuple[int, ...], block_counts: tuple[int, ...]) -> _core.BlockLayout:
    """Describe a row-major tensor, divided into blocks along any axes, as nested pairs (blocks, length of a block).

    Each axis is such a pair; neighbouring ones that make one pair together are joined, so that kernels meet few and
    long ones.

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensor.
    block_counts : tuple of int
        Number of blocks along each axis; each divides the axis.
    """
    pairs: list[tuple[int, int]] = []
    for size, blocks in zip(shape, block_counts, strict=True):
        length = size // blocks
        if pairs and pairs[-1][1] == 1:
            pairs[-1] = (pairs[-1][0] * blocks, length)
        elif pairs and blocks == 1:
            pairs[-1] = (pairs[-1][0], pairs[-1][1] * length)
        else:
            pairs.append((blocks, length))
    return tuple(pairs)


def checked_axis(verb: str, name: str, axis: int, shape: tuple[int, ...]) -> int:
    """Return `axis` counted from the front; ValueError if the shape has no such axis."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{verb}: {name} {axis} is not an axis of shape {shape}")
    return axis % len(shape)
