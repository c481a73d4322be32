"""Validate and normalize inputs; describe the grouped axis as a kernel layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import frexp, inf, prod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ._core import count_nonfinite, default_threads, round_to
from .errors import NonFiniteError
from .intake import FLOATS, NUMBERS, as_array, as_whole

if TYPE_CHECKING:  # only the stub has these
    from ._core import BlockLayout, Layout

_PIECE = 1 << 20  # bytes that are compared at once
_Result = TypeVar("_Result")


def contiguous(values: Any, dtype: Any = None) -> NDArray[Any]:
    """Return a C-contiguous and aligned array of the same shape, copied only where it must be."""
    array = np.asarray(values, dtype, order="C")
    return array if array.flags.aligned else array.copy()


def as_numbers(verb: str, name: str, given: Any) -> NDArray[np.float64]:
    """Return integers or floats of any width as a contiguous array of float64."""
    return contiguous(as_array(verb, name, given, NUMBERS), np.float64)


def as_weight(verb: str, weight: Any, name: str = "weight") -> NDArray[Any]:
    """Return `weight` as a C-contiguous, aligned, native-endian array of float16, bfloat16 or float32.

    It is copied only where it must be.

    Parameters
    ----------
    verb : str
        The caller's name, for messages.
    weight : array_like
        As for `as_array`. float64 is rounded to float32, to nearest even.
    name : str
        Name of the argument, for messages.

    Raises
    ------
    TypeError
        If the elements are not float16, bfloat16 (of the package ml_dtypes), float32 or float64.
    ValueError
        If a finite float64 value is infinite as float32.
    """
    array = as_array(verb, name, weight, FLOATS)
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            narrowed = array.astype(np.float32)
        if np.isinf(narrowed).sum() != np.isinf(array).sum():
            raise ValueError(f"{verb}: float64 values beyond {np.finfo(np.float32).max:.4g} do not fit float32")
        array = narrowed
    return contiguous(array)


def as_threads(verb: str, num_threads: int | None) -> int:
    """Return the number of threads to use; ValueError or TypeError, naming the function, if it is invalid."""
    if num_threads is None:
        try:
            return default_threads()
        except ValueError as failure:
            raise ValueError(f"{verb}: {failure}") from None
    return min(as_whole(verb, "num_threads", num_threads, 1), 2**31 - 1)


@contextmanager
def item(verb: str, index: int | None) -> Iterator[None]:
    """Make errors of a verb name the weight of a list that they are about; None for a single weight."""
    try:
        yield
    except (TypeError, ValueError) as failure:
        if index is not None:
            failure.args = (f"{verb}: weight {index} of the list: {str(failure).removeprefix(f'{verb}: ')}",)
        raise


def for_each(verb: str, in_list: bool, function: Callable[..., _Result], *columns: Iterable[Any]) -> list[_Result]:
    """The results of a function for each weight; its errors name the weight's position if it is one of a list."""
    results = []
    for index, row in enumerate(zip(*columns, strict=True)):
        with item(verb, index if in_list else None):
            results.append(function(*row))
    return results


def as_list(verb: str, weight: Any, data: Any, name: str = "importance") -> tuple[list[Any], list[Any]]:
    """Return the weights of a call with one or with a list or tuple of them, and the data of each or None.

    `name` is what messages call the data.
    """
    if not is_list(weight):
        return [weight], [data]
    if data is None:
        return list(weight), [None] * len(weight)
    if not is_list(data) or len(data) != len(weight):
        found = f"{len(data)}" if is_list(data) else type(data).__name__
        raise ValueError(
            f"{verb}: {name} must be a list of {len(weight)} entries, one per weight of the list, not {found}"
        )
    return list(weight), list(data)


def is_list(weight: Any) -> bool:
    """Whether the weight argument holds several weights, which give a result each."""
    return isinstance(weight, list | tuple)


def require_importance(verb: str, name: str, importance: Any, shape: tuple[int, ...]) -> tuple[NDArray[Any], float]:
    """Return the importance of the elements of a weight as an array of floats, and the largest.

    Raises
    ------
    TypeError
        If it is not an array of numbers.
    ValueError
        If it does not have the weight's shape, or is negative or not finite somewhere.
    """
    given = as_array(verb, name, importance, NUMBERS)
    if given.dtype.kind in "iub":
        given = given.astype(np.float64)
    if given.shape != shape:
        raise ValueError(f"{verb}: {name} has shape {given.shape}, the weight {shape}")
    least, most = (float(given.min()), float(given.max())) if given.size else (0.0, 0.0)  # NaN if there is one
    if not 0 <= least <= most < inf:
        raise ValueError(f"{verb}: {name} must be finite and not negative, not {least:g} to {most:g}")
    return given, most


def as_importance(verb: str, importance: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the importance of the elements of a weight as contiguous float32.

    Only ratios matter: float64 is divided by a power of two first, so that tiny numbers do not become 0.
    """
    given, most = require_importance(verb, "importance", importance, shape)
    if given.dtype.itemsize == 8 and most > 0:
        given = np.ldexp(given, -frexp(most)[1])
    return contiguous(given, np.float32)


def as_finite_weight(verb: str, weight: Any, num_threads: int | None, name: str = "weight") -> NDArray[Any]:
    """Like `as_weight`, but raise NonFiniteError if there are NaN or infinite values."""
    array = as_weight(verb, weight, name)
    if count_nonfinite(array, num_threads):
        raise not_finite(verb, array, num_threads)
    return array


def not_finite(verb: str, array: NDArray[Any], num_threads: int | None) -> NonFiniteError:
    """Return the error for an array with NaN or infinite values."""
    count = count_nonfinite(array, num_threads)
    if count == 0:
        return NonFiniteError(
            f"{verb}: values were NaN or infinite and are finite now: the array changed during the call"
        )
    return not_finite_count(verb, count, array.shape)


def not_finite_count(verb: str, count: int, shape: tuple[int, ...]) -> NonFiniteError:
    """Return the error for a weight with `count` NaN or infinite values."""
    return NonFiniteError(f"{verb}: {count} of {prod(shape)} values are NaN or infinite (shape {shape})")


def rounded_to(dtype: np.dtype[Any], values: Any) -> NDArray[Any]:
    """Round numbers to float16, bfloat16 or float32, once, to nearest even; -0 becomes 0."""
    exact = contiguous(values, np.float64)
    rounded = np.empty(exact.shape, dtype)
    round_to(exact.reshape(-1), rounded.reshape(-1))
    return rounded


def same_bits(first: NDArray[Any], second: NDArray[Any]) -> bool:
    """Whether two arrays are the same: dtype, shape and every bit, NaN and the sign of zeros included."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.dtype == object:
        return bool(np.array_equal(first, second))
    ours, theirs = (np.ascontiguousarray(each).reshape(-1).view(np.uint8) for each in (first, second))
    pieces = (slice(start, start + _PIECE) for start in range(0, ours.size, _PIECE))
    return all(np.array_equal(ours[piece], theirs[piece]) for piece in pieces)


def group_layout(shape: tuple[int, ...], group_counts: tuple[int, ...]) -> Layout:
    """Describe a row-major tensor, divided into groups along its axes, as (outer, groups, run).

    Element ``(o, g, r)`` of that view belongs to group ``g``. This covers one grouped axis, and several adjacent ones
    of which all but the last have one group per entry.

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


def find_group_layout(shape: tuple[int, ...], group_counts: tuple[int, ...]) -> Layout | None:
    """Like `group_layout`, but return None for other groups."""
    grouped = [axis for axis, groups in enumerate(group_counts) if groups > 1]
    if not grouped:
        return (1, 1, prod(shape))
    first, last = grouped[0], grouped[-1]
    if any(shape[axis] != group_counts[axis] for axis in range(first, last)):
        return None
    groups = prod(group_counts)
    outer = prod(shape[:first])
    return (outer, groups, prod(shape) // (outer * groups))


def axis_layout(shape: tuple[int, ...], axis: int) -> Layout:
    """Describe a row-major tensor as (outer, length of one axis, run); no axis may be empty."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def block_layout(shape: tuple[int, ...], block_counts: tuple[int, ...]) -> BlockLayout:
    """Describe a row-major tensor, divided into blocks along any axes, as (blocks, length of a block) for each axis.

    Parameters
    ----------
    shape : tuple of int
        Shape of the tensor.
    block_counts : tuple of int
        Number of blocks along each axis; each divides the axis.
    """
    return tuple((blocks, size // blocks) for size, blocks in zip(shape, block_counts, strict=True))


def checked_axis(verb: str, name: str, axis: int, shape: tuple[int, ...]) -> int:
    """Return `axis` counted from the front; ValueError if the shape has no such axis."""
    if not -len(shape) <= axis < len(shape):
        scalar = name == "channel_axis" and not shape
        hint = "; a scalar has no channels, use granularity='per_tensor'" if scalar else ""
        raise ValueError(f"{verb}: {name} {axis} is not an axis of shape {shape}{hint}")
    return axis % len(shape)
