"""Sums of products of vectors in blocks of columns, on NumPy; `moments` adds them up with PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
VECTORS, VECTORS_OF_COLUMN = 1024, 8  # taken from each run at least, and in all for each column of a block
LARGE = 50_000_000  # weights, from which on time is saved
BLOCK_COLUMNS, BLOCK_COLUMNS_OF_LARGE = 2048, 1152
_PANEL = 256  # columns that are multiplied with all that follow: half of the products, and of the memory
_MOST_TOGETHER = 512  # vectors that are multiplied at once: of few, most time goes into adding their products up


def block_columns(columns: int, of_channel: int, most: int) -> int:
    """Columns of a block: whole input channels where they fit, in blocks of much the same size.

    Parameters
    ----------
    columns : int
        All columns.
    of_channel : int
        Columns of one input channel.
    most : int
        Of a block.
    """
    unit = of_channel if of_channel <= most else 1
    units = -(-columns // unit)
    blocks = -(-units // max(1, most // unit))
    return -(-units // blocks) * unit


def within(items: Sequence[T], limit: int, size_of: Callable[[T], int]) -> list[list[T]]:
    """Items in order, in as few lists as keep the sum of their sizes within a limit."""
    groups: list[list[T]] = []
    room = 0
    for each in items:
        size = size_of(each)
        if not groups or size > room:
            groups.append([])
            room = limit
        groups[-1].append(each)
        room -= size
    return groups


class BlockSums:
    """Sums of products of inputs, in blocks of columns.

    Some hundred vectors are multiplied in float32, and their products added in float64. Of each block the upper
    triangle is kept, in panels.

    Parameters
    ----------
    groups, columns : int
        Number of matrices, and the columns of each.
    size : int
        Columns of a block.
    """

    WAITING = ("waiting", "factor")  # what `state` has of vectors that wait

    def __init__(self, groups: int, columns: int, size: int) -> None:
        self.groups, self.columns, self.size = groups, columns, size
        self.count = 0
        self._waiting: list[Any] = []
        self._factor = 1.0  # of those that wait
        self._sums: dict[tuple[int, int], NDArray[np.float64]] = {
            (start, first): np.zeros((groups, min(_PANEL, stop - first), stop - first))
            for start, stop, first in self._panels()
        }

    @staticmethod
    def bytes_of(groups: int, columns: int, size: int) -> int:
        """What the sums occupy, about, with vectors that wait."""
        blocks = -(-columns // size)
        return 8 * groups * blocks * (
            size * (size + min(size, _PANEL)) // 2
        ) + 4 * groups * columns * BlockSums._together(size)

    @staticmethod
    def _together(size: int) -> int:
        return min(size, _MOST_TOGETHER)

    def _panels(self) -> Iterator[tuple[int, int, int]]:
        for start in range(0, self.columns, self.size):
            stop = min(start + self.size, self.columns)
            for first in range(start, stop, _PANEL):
                yield start, stop, first

    def add(self, inputs: Any, factor: float, count: int) -> None:
        """Add input vectors.

        Parameters
        ----------
        inputs : numpy.ndarray, or torch.Tensor for `Moments`
            float32 (groups, vectors, columns).
        factor : float
            How often each counts.
        count : int
            How many vectors they represent.
        """
        self.count += count
        if self._waiting and (
            factor != self._factor or self._number_waiting + inputs.shape[1] > self._together(self.size)
        ):
            self._multiply_waiting()
        if inputs.shape[1] > self._together(self.size) // 2:
            self._multiply(inputs, factor)
        else:
            self._wait(inputs)
            self._factor = factor

    def _wait(self, inputs: Any) -> None:
        self._waiting.append(inputs.copy())  # what it is a view of may be large, or change

    def _joined(self) -> Any:
        return np.concatenate(self._waiting, axis=1)

    def _product(self, inputs: Any, rows: slice, columns: slice) -> NDArray[Any]:
        """The products of some columns with others, (groups, rows, columns)."""
        product: NDArray[Any] = np.matmul(inputs[:, :, rows].transpose(0, 2, 1), inputs[:, :, columns])
        return product

    @property
    def _number_waiting(self) -> int:
        return sum(each.shape[1] for each in self._waiting)

    def _multiply_waiting(self) -> None:
        if self._waiting:
            self._multiply(self._joined(), self._factor)
            self._waiting = []

    def _multiply(self, inputs: Any, factor: float) -> None:
        for start, stop, first in self._panels():
            sums = self._sums[start, first]
            product = self._product(inputs, slice(first, first + sums.shape[1]), slice(first, stop))
            sums += product if factor == 1 else np.multiply(product, factor, dtype=np.float64)

    def mean(self) -> NDArray[np.float32]:
        """The moments, (groups, blocks, size, size); zero where a block has no columns."""
        self._multiply_waiting()
        blocks = -(-self.columns // self.size)
        found = np.zeros((self.groups, blocks, self.size, self.size), np.float32)
        for start, stop, first in self._panels():
            block, row, width = start // self.size, first - start, stop - start
            sums = self._sums[start, first]
            last = row + sums.shape[1]
            of_block = found[:, block]
            part = of_block[:, row:last, row:width]
            np.divide(sums, max(1, self.count), out=part, casting="same_kind")
            of_block[:, last:width, row:last] = part[:, :, last - row :].transpose(0, 2, 1)
            square = part[:, :, : last - row]
            square[...] = (square + square.transpose(0, 2, 1)) / 2
        return found

    @property
    def is_finite(self) -> bool:
        """Whether all sums are finite."""
        self._multiply_waiting()
        with np.errstate(invalid="ignore"):  # of infinities that cancel each other
            return all(math.isfinite(float(each.sum())) for each in self._sums.values())  # of finite ones it is finite

    def state(self) -> dict[str, NDArray[Any]]:
        """The sums so far, and what waits to be added, as arrays by name."""
        found: dict[str, NDArray[Any]] = {f"{start}/{first}": each for (start, first), each in self._sums.items()}
        if self._waiting:
            waiting = np.asarray(self._joined())
            found |= dict(zip(self.WAITING, (waiting, np.array(self._factor)), strict=True))
        return found

    def restore(self, state: dict[str, NDArray[Any]], count: int) -> None:
        """Continue from what `state` returned."""
        self.count = count
        for (start, first), each in self._sums.items():
            each[...] = state[f"{start}/{first}"]
        if "waiting" in state:
            self._waiting, self._factor = [self._restored(np.array(state["waiting"]))], float(state["factor"])

    def _restored(self, waiting: NDArray[Any]) -> Any:
        return waiting
