"""Palettes of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def vectors_of(array: NDArray[Any], cluster_dim: int, axis: int) -> NDArray[Any]:
    """Return the vectors of `cluster_dim` consecutive elements along an axis, one a row.

    Parameters
    ----------
    array : numpy.ndarray
        Any shape with such an axis, which `cluster_dim` divides.
    cluster_dim : int
        Elements of a vector.
    axis : int
        The axis. Rows come in row-major order of the array's shape with that axis divided by `cluster_dim`.
    """
    shape = (*array.shape[:axis], array.shape[axis] // cluster_dim, cluster_dim, *array.shape[axis + 1 :])
    return np.moveaxis(array.reshape(shape), axis + 1, -1).reshape(-1, cluster_dim)


def vector_distances(
    vectors: NDArray[Any], entries: NDArray[Any], weights: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return the sums of squares, in float32 and in the order of components, between vectors and table entries.

    The kernels give the same bits for float16, and for float32 tables whose largest magnitude is from 2**-20 to 2**40.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape ``(count, length)``.
    entries : numpy.ndarray
        Shape ``(entries, length)``.
    weights : numpy.ndarray of float32, optional
        What each component's square is multiplied by, in the shape of `vectors`.
    """
    differences = vectors.astype(np.float32)[:, None, :] - entries.astype(np.float32)[None, :, :]
    squares = differences * differences
    if weights is not None:
        squares = squares * weights[:, None, :]
    distances: NDArray[np.float32] = np.add.accumulate(squares, axis=-1)[..., -1]
    return distances


def assign_vectors(
    vectors: NDArray[Any], entries: NDArray[Any], weights: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """Return the nearest entry of each vector, of equally near ones the first; see `vector_distances`."""
    codes: NDArray[np.int64] = np.argmin(vector_distances(vectors, entries, weights), axis=1)
    return codes


def lloyd_step(vectors: NDArray[Any], entries: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of the vectors nearest to each entry, in float64; an entry that has none stays.

    Parameters
    ----------
    vectors : numpy.ndarray
        Shape ``(count, length)``.
    entries : numpy.ndarray
        Shape ``(entries, length)``.
    """
    moved = entries.astype(np.float64)
    codes = assign_vectors(vectors, entries)
    for code in np.unique(codes):
        moved[code] = vectors[codes == code].astype(np.float64).mean(axis=0)
    return moved


def decode_palette(codes: NDArray[Any], lut: NDArray[Any], vector_axis: int | None) -> NDArray[Any]:
    """Look up every element: ``lut[group of its code..., its code, its place in the vector]``.

    Parameters
    ----------
    codes : numpy.ndarray of int
        In the weight's shape, with `vector_axis` divided by the vectors' length.
    lut : numpy.ndarray
        Shape: groups along each axis of `codes`, entries, length of a vector. Groups divide the axes of `codes`.
    vector_axis : int or None
        None where the length is 1.
    """
    length = lut.shape[-1]
    shape = tuple(size * length if axis == vector_axis else size for axis, size in enumerate(codes.shape))
    dense = np.empty(shape, lut.dtype)
    for place in np.ndindex(shape):
        index = tuple(each // length if axis == vector_axis else each for axis, each in enumerate(place))
        group = tuple(
            each * groups // size for each, groups, size in zip(index, lut.shape[:-2], codes.shape, strict=True)
        )
        component = 0 if vector_axis is None else place[vector_axis] % length
        dense[place] = lut[(*group, codes[index], component)]
    return dense
