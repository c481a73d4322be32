"""How far apart the values of two constants are, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import sum_errors
from ..arrays import same_bits
from ..compression.metrics import Error, error_of_sums
from ..tensors.base import PIECE, added


class Undecodable(Exception):
    """A constant is stored in a form that this version does not support; the message says which."""


Pair = tuple[NDArray[Any], NDArray[Any]]


def same_stored(first: NDArray[Any], second: NDArray[Any], forget: Callable[[], None]) -> bool:
    """`same_bits` of two arrays that are views of files, of which few pages stay in memory.

    Parameters
    ----------
    first, second : numpy.ndarray
        The arrays.
    forget : callable
        Lets the system drop their pages; called after each piece.
    """
    if first.shape != second.shape:
        return False
    ours, theirs = first.reshape(-1), second.reshape(-1)
    for start in range(0, max(1, ours.size), PIECE):
        piece = slice(start, start + PIECE)
        if not same_bits(ours[piece], theirs[piece]):
            return False
        forget()
    return True


def distance(pairs: Iterable[Pair], num_threads: int | None = None) -> Error:
    """`corepress.error` of two arrays in pieces, of any element type; no error if all bits are the same."""
    sums, size, same = [], 0, True
    for first, second in pairs:
        same = same and same_bits(first, second)
        sums.append(sum_errors(comparable(first), comparable(second), num_threads))
        size += first.size
    return Error(0.0, 0.0, math.inf, 0.0, 1.0) if same else error_of_sums(added(sums), size)


def distance_of(pairs: Callable[[], Iterable[Pair]], num_threads: int | None = None) -> Error:
    """`distance` of arrays that are decoded only then; raises what decoding them does."""
    return distance(pairs(), num_threads)


def comparable(values: NDArray[Any]) -> NDArray[Any]:
    """Values as the kernels take them."""
    if values.dtype.kind == "f" and values.dtype.itemsize in (2, 4):
        return np.ascontiguousarray(values)
    wide = np.result_type(values.dtype, np.float64)
    return values.astype(wide).astype(np.float32)


def finite(value: float | None) -> float | None:
    """A number for strict JSON, which has no infinity or NaN: None for these."""
    return value if value is not None and math.isfinite(value) else None


def in_decibels(value: float | None) -> str:
    """For tables."""
    if value is None or math.isnan(value):
        return "-"
    return "exact" if value == math.inf else f"{value:.1f}"
