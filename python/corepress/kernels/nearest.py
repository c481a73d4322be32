"""Numbers rounded, or replaced by the nearest of some."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _core
from ..arrays import as_threads, as_weight, contiguous
from ..compression import palettize

__all__ = ["assign", "to_float16"]


def assign(values: Any, centroids: Any, *, num_threads: int | None = None) -> NDArray[np.uint8]:
    """Return, for each value, the index of the nearest centroid, the lower one if two are equally near.

    Parameters
    ----------
    values : array_like of float16, bfloat16, float32 or float64
        Any shape; float64 is narrowed to float32.
    centroids : array_like
        1 to 256 finite numbers, 1-D, ascending, rounded to the dtype of `values`. Of equal ones the first is taken.
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
    if np.ndim(centroids) == 1 and (np.diff(np.asarray(centroids, np.float64)) < 0).any():
        raise ValueError("assign: centroids must ascend")
    num_threads = as_threads("assign", num_threads)
    tensor = palettize(as_weight("assign", values), lut=centroids, num_threads=num_threads)
    return tensor.codes()


def to_float16(values: Any, *, num_threads: int | None = None) -> NDArray[np.float16]:
    """Round to half precision, to nearest even, as NumPy does and faster.

    Parameters
    ----------
    values : array_like
        Any shape, taken as float32.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    numpy.ndarray of float16
        In the shape of `values`. Magnitudes of 65,520 and more become infinite; NaN stays NaN.
    """
    array = contiguous(values, np.float32)
    halves = _core.round_to_half(array.reshape(-1), as_threads("to_float16", num_threads))
    return halves.view(np.float16).reshape(array.shape)
