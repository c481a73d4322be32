"""Scalar palettes: codes of nearest entries, and what codes decode to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rounding import round_to


def table_cuts(lut: NDArray[Any]) -> NDArray[np.float64]:
    """Return the middles between the neighbouring entries of an ascending table, in float64."""
    entries = lut.astype(np.float64)
    return (entries[:-1] + entries[1:]) / 2


def assign(values: NDArray[Any], lut: NDArray[Any]) -> NDArray[np.uint8]:
    """Return for each value the number of its nearest entry; between two equally near ones the lower.

    Parameters
    ----------
    values : numpy.ndarray of float16 or float32
        Any shape.
    lut : numpy.ndarray
        Ascending entries. Of equal entries the first is taken, for values above the last of them too.
    """
    cuts = table_cuts(lut)
    codes = np.zeros(values.shape, np.int64)
    for cut in cuts:
        codes += values.astype(np.float64) > cut
    first_equal = np.searchsorted(lut, lut, side="left")
    return first_equal[codes].astype(np.uint8)


def uniform_table(values: NDArray[Any], entries: int) -> NDArray[Any]:
    """Return the table of even steps from the smallest to the largest value; -0 is 0.

    Parameters
    ----------
    values : numpy.ndarray of float16, bfloat16 or float32
        Finite.
    entries : int
        At least 2.

    Notes
    -----
    The steps' width is rounded to the dtype first, as coremltools' is. Such steps may miss the range by much, where
    their width is subnormal: then exact steps are taken if their squared error is smaller, and where a rounded width
    overflows in any case.
    """
    dtype, steps = values.dtype, entries - 1
    lowest, highest = float(values.min()), float(values.max())
    exact = round_to([*(lowest + k * ((highest - lowest) / steps) for k in range(steps)), highest], dtype)
    width = float(round_to(float(round_to(highest - lowest, dtype)) / steps, dtype))
    table = exact
    if np.isfinite(width) and np.isfinite(round_to(lowest + steps * width, dtype)):
        table = round_to([lowest + k * width for k in range(entries)], dtype)
        if abs(steps * width - (highest - lowest)) > width / 2 and _error(values, exact) < _error(values, table):
            table = exact
    return table + dtype.type(0)  # type: ignore[no-any-return]


def _error(values: NDArray[Any], table: NDArray[Any]) -> float:
    numbers = values.astype(np.float64)
    return float(((numbers - table.astype(np.float64)[assign(values, table)]) ** 2).sum())


def look_up(codes: NDArray[np.uint8], lut: NDArray[Any]) -> NDArray[Any]:
    """Return the entries of the codes."""
    return lut[codes]


def block_parameters(parameters: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return each element's parameter: element i of an axis takes entry ``i // (length // entries)`` of it.

    Parameters
    ----------
    parameters : numpy.ndarray
        One axis per axis of `shape`, then any further ones.
    shape : tuple of int
        Whose axes the entries divide.
    """
    for axis, length in enumerate(shape):
        entries = parameters.shape[axis]
        parameters = parameters.take([i // (length // entries) for i in range(length)], axis=axis)
    return parameters


def look_up_groups(codes: NDArray[np.uint8], lut: NDArray[Any]) -> NDArray[Any]:
    """Return the entries of the codes, each from the table of its group.

    Parameters
    ----------
    codes : numpy.ndarray of uint8
        In the tensor's shape.
    lut : numpy.ndarray
        Groups along each axis, then entries, then 1.
    """
    tables = block_parameters(lut[..., 0], codes.shape)
    entries: NDArray[Any] = np.take_along_axis(tables, codes[..., None].astype(np.intp), axis=-1)[..., 0]
    return entries


def normalize(weight: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the largest magnitude of each entry of an axis, 1 where that is 0, and the weight divided by it.

    Parameters
    ----------
    weight : numpy.ndarray of float16 or float32
        Any shape.
    axis : int
        The axis whose entries have a scale each.
    """
    others = tuple(each for each in range(weight.ndim) if each != axis % weight.ndim)
    scale = np.abs(weight).max(axis=others, keepdims=True)
    scale[scale == 0] = 1
    return scale, (weight.astype(np.float32) / scale.astype(np.float32)).astype(weight.dtype)
