"""Round to float16; assign values to the nearest centroid."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import palettize, round_to_half, unpack_bits
from ..arrays import as_finite_weight, as_threads, contiguous
from ..compression.tables import given_table, rounded_tables, width_for
from ..intake import NUMBERS, as_array

__all__ = ["assign", "to_float16"]


def assign(values: Any, centroids: Any, *, num_threads: int | None = None) -> NDArray[np.uint8]:
    """Return, for each value, the index of the nearest centroid, the lower one if two are equally near.

    Parameters
    ----------
    values : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is rounded to float32.
    centroids : array_like
        1 to 256 finite numbers, 1-D, ascending, rounded to the dtype of `values`. Among equal ones the first is used.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of uint8
        In the shape of `values`.

    Raises
    ------
    TypeError
        If the values are not a float array.
    ValueError
        If the centroids do not ascend, are too many or none, or anything is NaN or infinite.
    """
    num_threads = as_threads("assign", num_threads)
    array = as_finite_weight("assign", values, num_threads, "values")
    table = given_table("assign", "centroids", centroids)
    if (np.diff(table) < 0).any():
        raise ValueError("assign: centroids must ascend")
    nbits = width_for(table.size)
    luts = rounded_tables(array.dtype, [table], nbits, "assign", "centroids")
    codes = np.empty(array.shape, np.uint8)
    if array.size:
        (encoded,) = palettize([array], [(1, 1, array.size)], nbits, "kmeans", [luts], [None], False, num_threads)
        assert encoded is not None, "values are finite"
        unpack_bits(encoded[1], nbits, False, False, codes.size, codes.reshape(-1), num_threads)
    return codes


def to_float16(values: Any, *, num_threads: int | None = None) -> NDArray[np.float16]:
    """Round to half precision, to nearest even, as NumPy does but faster.

    Parameters
    ----------
    values : array_like
        Integers or floats of any shape. float64 is rounded once.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of float16
        In the shape of `values`. Magnitudes of 65,520 and more become infinite; NaN stays NaN.

    Raises
    ------
    TypeError
        If the values are not numbers.
    """
    array = as_array("to_float16", "values", values, NUMBERS)
    array = contiguous(array, np.float64 if array.dtype == np.float64 else np.float32)
    halves = round_to_half(array.reshape(-1), as_threads("to_float16", num_threads))
    return halves.view(np.float16).reshape(array.shape)
