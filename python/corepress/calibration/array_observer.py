"""The input vectors that a weight is multiplied with, taken from arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .asset_uses import AssetUse
from .block_sums import BlockSums
from .places import WindowPlaces, spread

_ELEMENTS = 1 << 24  # of vectors that are made at a time


class ArrayObserver:
    """Adds the vectors that a weight is multiplied with in one operation to its sums.

    Parameters
    ----------
    use : AssetUse
        The use.
    sums : BlockSums
        Where they are added.
    most : int
        Vectors that are taken from one run of the operation, evenly spread over all; each then counts for several.
    """

    def __init__(self, use: AssetUse, sums: BlockSums, most: int) -> None:
        self._use, self._sums, self._most = use, sums, most

    def __call__(self, value: NDArray[Any]) -> None:
        """Take the vectors of a value that the weight is multiplied with."""
        if not value.size:
            return
        x = np.asarray(value, np.float32)
        for vectors, factor, count in self._windows(x) if self._use.kind == "conv" else self._rows(x):
            self._sums.add(vectors, factor, count)

    def _rows(self, x: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], float, int]]:
        vectors = self._vectors(x)
        count = vectors.shape[1]
        chosen = spread(count, self._most)
        if chosen is not None:
            vectors = vectors[:, chosen]
        taken = vectors.shape[1]
        rows = max(1, _ELEMENTS // max(1, vectors.shape[0] * vectors.shape[2]))
        for start in range(0, taken, rows):
            part = np.ascontiguousarray(vectors[:, start : start + rows])
            yield part, count / taken, count if start + rows >= taken else 0

    def _vectors(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """All vectors, (groups, vectors, columns), a view where it can be."""
        groups, columns = self._sums.groups, self._sums.columns
        if self._use.kind == "conv_transpose":
            return np.moveaxis(x, 1, -1).reshape(-1, groups, columns).transpose(1, 0, 2)
        if self._use.turned:
            x = x.swapaxes(-1, -2)
        if groups == 1:
            return x.reshape(1, -1, columns)
        axis = self._use.batch  # counted from the end, as in broadcasting
        if x.ndim < -axis or x.shape[axis] == 1:
            return np.broadcast_to(x.reshape(1, -1, columns), (groups, x.size // columns, columns))
        return np.moveaxis(x, axis, 0).reshape(groups, -1, columns)

    def _windows(self, x: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.float32], float, int]]:
        use, groups = self._use, self._sums.groups
        x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        found = WindowPlaces.of(x.shape[:-1], use.kernel, use.strides, use.dilations, self._most)
        pixels = x.reshape(-1, x.shape[-1])
        rows = max(1, _ELEMENTS // (found.offsets.size * pixels.shape[1]))
        for start in range(0, len(found.starts), rows):
            index = found.starts[start : start + rows, None] + found.offsets
            taken = pixels[index.reshape(-1)].reshape(len(index), found.offsets.size, groups, -1)
            vectors = taken.transpose(2, 0, 3, 1).reshape(groups, len(index), -1)
            yield vectors, found.factor, found.total if start + rows >= len(found.starts) else 0
