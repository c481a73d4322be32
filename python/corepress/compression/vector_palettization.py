"""Palettes of vectors: each entry encodes several consecutive channels."""

from __future__ import annotations

from dataclasses import replace
from math import frexp, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import palettize_vectors as palettize_vectors_native
from ..arrays import checked_axis, item
from ..errors import TooManyValuesError
from ..specs import PALETTE_BITS, Palettize
from ..tensors import PalettizedTensor
from .divisions import group_counts

_PIECE = 1 << 16  # vectors


def palettize_vectors(
    arrays: list[NDArray[Any]],
    spec: Palettize,
    importances: list[NDArray[np.float32] | None],
    num_threads: int,
    in_list: bool = False,
) -> list[PalettizedTensor]:
    """Palettize contiguous, finite arrays as a spec with `cluster_dim` above 1 says, by k-means or distinct vectors.

    Parameters
    ----------
    arrays : list of numpy.ndarray of float16, bfloat16 or float32
        The weights.
    spec : Palettize
        What to do to each.
    importances : list of numpy.ndarray or None
        How much the squared error of each element counts; None for all alike.
    num_threads : int
        Threads to use.
    in_list : bool
        Whether errors name the position of the weight in the list.

    Raises
    ------
    IndivisibleError
        If vectors, or groups of them, do not divide the axis.
    TooManyValuesError
        If there are more distinct vectors than entries, for mode ``"unique"``.
    """
    length = spec.cluster_dim
    axes, groups, widths = [], [], []
    for index, array in enumerate(arrays):
        with item("palettize", index if in_list else None):
            axes.append(_vector_axis(array, spec))
            groups.append(group_counts(spec, array.shape)[axes[-1]])
            if spec.mode == "unique":
                widths.append(_bits_for_distinct(array, axes[-1], groups[-1], spec))
    if spec.mode == "unique":
        # As many entries as there are distinct vectors lose nothing, and the tables that are fitted are these vectors.
        return [
            palettize_vectors([array], replace(spec, mode="kmeans", nbits=nbits), [None], num_threads)[0]
            for array, nbits in zip(arrays, widths, strict=True)
        ]
    nbits = spec.nbits
    assert nbits is not None
    inners = [prod(array.shape[axis + 1 :]) for array, axis in zip(arrays, axes, strict=True)]
    layouts = [
        (prod(array.shape[:axis]), count, array.shape[axis] // length // count * inner)
        for array, axis, count, inner in zip(arrays, axes, groups, inners, strict=True)
    ]
    scaled = [_scaled_importance(importance) for importance in importances]
    encoded = palettize_vectors_native(arrays, layouts, inners, length, nbits, scaled, num_threads)
    tensors = []
    for array, axis, count, (lut, indices) in zip(arrays, axes, groups, encoded, strict=True):
        counts = [1] * array.ndim
        counts[axis] = count
        tensors.append(PalettizedTensor(array.shape, indices, lut.reshape(*counts, 2**nbits, length), nbits, axis))
    return tensors


def _vector_axis(array: NDArray[Any], spec: Palettize) -> int:
    if array.size == 0:
        raise ValueError(f"palettize: weight has no elements (shape {array.shape})")
    return checked_axis("palettize", "channel_axis", spec.channel_axis or 0, array.shape)


def _bits_for_distinct(array: NDArray[Any], axis: int, group_count: int, spec: Palettize) -> int:
    """Return the width whose tables hold the distinct vectors of each group; zeros of both signs are one value."""
    vectors = np.moveaxis(array, axis, -1).reshape(-1, group_count, array.shape[axis] // group_count)
    grouped = np.ascontiguousarray(np.moveaxis(vectors, 1, 0)).reshape(group_count, -1, spec.cluster_dim)
    most = 2 ** (spec.nbits or PALETTE_BITS[-1])
    counts = [_count_distinct(group, most) for group in grouped]
    if max(counts) > most:
        rule = f"mode 'unique' needs at most {most} distinct vectors per table"
        raise TooManyValuesError(f"palettize: {rule}, but there are more (shape {array.shape})")
    return spec.nbits or next(nbits for nbits in PALETTE_BITS if max(counts) <= 2**nbits)


def _count_distinct(vectors: NDArray[Any], most: int) -> int:
    """Return the number of distinct rows, or some number above `most` if there are more."""
    found: set[bytes] = set()
    for start in range(0, len(vectors), _PIECE):
        piece = vectors[start : start + _PIECE] + vectors.dtype.type(0)  # of -0 and 0 this leaves 0
        rows = piece.view(np.dtype((np.void, piece.itemsize * piece.shape[1])))
        found.update(map(bytes, np.unique(rows)))
        if len(found) > most:
            break
    return len(found)


def _scaled_importance(importance: NDArray[np.float32] | None) -> tuple[NDArray[np.float32], float] | None:
    """Return importance, and the power of two that brings the largest to 1/2 or more."""
    if importance is None or not importance.any():
        return None
    exponent = exponent_of_weights("palettize", "importance", importance)
    if abs(exponent) < 126:
        return importance, 2.0**-exponent  # multiplied as it is read
    return np.ldexp(importance, -exponent), 1.0


def exponent_of_weights(verb: str, name: str, array: NDArray[Any]) -> int:
    """Return the e for which the largest of some weights, divided by ``2**e``, is at least 1/2 and below 1.

    Weights so divided keep their digits when they multiply squares.

    Parameters
    ----------
    verb, name : str
        Caller and argument, for messages.
    array : numpy.ndarray of a real type
        Finite, not negative, not all 0.
    """
    largest, least = float(array.max()), float(array.min())  # NaN comes through both
    if not (least >= 0 and 0 < largest < np.inf):
        raise ValueError(f"{verb}: {name} must be finite, not negative and not all 0")
    return frexp(largest)[1]
