"""Per-channel scaling: a tensor divided by the largest magnitude of each channel, as a whole or a piece at a time."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import encode_sparse
from .._core import normalize as normalize_native
from ..arrays import axis_layout
from ..tensors import SparseTensor
from ..tensors.base import CompressedTensor, pieces


def normalize(array: NDArray[Any], axis: int, num_threads: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Divide each channel by its largest magnitude.

    Returns
    -------
    scale : numpy.ndarray
        The magnitudes, 1 for channels that are all zero; in the array's dtype, with 1 entry along the other axes.
    quotients : numpy.ndarray
        In the array's dtype and shape, rounded once.
    """
    scale, quotients = normalize_native(array, axis_layout(array.shape, axis), num_threads)
    shape = [1] * array.ndim
    shape[axis] = array.shape[axis]
    return scale.reshape(shape), quotients.reshape(array.shape)


class Quotients:
    """The quotients of an array, or of the values of a sparse tensor, with only a few in memory at a time.

    Parameters
    ----------
    tensor : numpy.ndarray or SparseTensor
        Must be finite, and contiguous if it is an array.
    axis : int
        The channels', from the front.
    num_threads : int or None
        Threads to use.

    Attributes
    ----------
    scale : numpy.ndarray
        The magnitudes as `normalize` gives them, once all pieces were made.
    size : int
        Number of quotients.
    """

    def __init__(self, tensor: NDArray[Any] | SparseTensor, axis: int, num_threads: int | None) -> None:
        self._tensor, self._axis, self._num_threads = tensor, axis, num_threads
        shape = tensor.shape
        self.size = tensor.nnz if isinstance(tensor, SparseTensor) else tensor.size
        self._by_channels = prod(shape[:axis]) == 1
        self._cut = axis if self._by_channels else next(index for index, length in enumerate(shape) if length > 1)
        self._lengths = tuple(length if index == axis else 1 for index, length in enumerate(shape))
        self.scale = np.zeros(self._lengths, tensor.dtype)
        if not self._by_channels:
            self._find_magnitudes()

    def pieces(self) -> Iterator[NDArray[Any]]:
        """The quotients in row-major order, 1-D arrays."""
        begin = 0
        for part, array in self._parts():
            if self._by_channels:
                scale, quotients = normalize(array, self._axis, self._num_threads)
                channels = scale.shape[self._axis]
                self.scale.reshape(-1)[begin : begin + channels] = scale.reshape(-1)
                begin += channels
            else:
                quotients = self._divided(array)
            if isinstance(part, SparseTensor):
                kept = np.empty(part.nnz, quotients.dtype)
                encode_sparse(quotients, part.mask, kept, self._num_threads)
                yield kept
            else:
                yield quotients.reshape(-1)

    def whole(self) -> NDArray[Any]:
        """All of them, 1-D."""
        quotients, begin = np.empty(self.size, self._tensor.dtype), 0
        for piece in self.pieces():
            quotients[begin : begin + piece.size] = piece
            begin += piece.size
        return quotients

    def _parts(self) -> Iterator[tuple[Any, NDArray[Any]]]:
        """The tensor cut along one axis, and the decompressed parts."""
        together = [1 if index == self._cut else length for index, length in enumerate(self._tensor.shape)]
        for (part,) in pieces((self._tensor,), together=together):
            yield part, part.dense(num_threads=self._num_threads) if isinstance(part, CompressedTensor) else part

    def _find_magnitudes(self) -> None:
        bits = np.dtype(f"u{self.scale.itemsize}")
        largest = self.scale.view(bits)  # magnitudes are ordered as their bits are
        others = tuple(index for index in range(self.scale.ndim) if index != self._axis)
        for _, array in self._parts():
            magnitudes = array.view(bits) & bits.type(np.iinfo(bits).max >> 1)
            np.maximum(largest, magnitudes.max(others, keepdims=True), out=largest)
        self.scale[self.scale == 0] = 1

    def _divided(self, array: NDArray[Any]) -> NDArray[Any]:
        """The quotients of a part that has some entries of each channel: the largest of all go in front of them."""
        shape = [*array.shape]
        shape[self._cut] = 1
        led = np.concatenate([np.broadcast_to(self.scale, shape), array], self._cut)
        before = (slice(None),) * self._cut
        return np.ascontiguousarray(normalize(led, self._axis, self._num_threads)[1][(*before, slice(1, None))])
