"""Second moments of the inputs of weights: E[x x^T], summed over samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PANEL = 256  # columns that are multiplied with all that follow: half of the products, and of the memory


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


class Moments:
    """Sums of products of inputs, in blocks of columns.

    A batch is multiplied in float32 and added in float64. Of each block the upper triangle is kept, in panels.

    Parameters
    ----------
    groups, columns : int
        Number of matrices, and the columns of each.
    size : int
        Columns of a block.
    """

    def __init__(self, groups: int, columns: int, size: int) -> None:
        self.groups, self.columns, self.size = groups, columns, size
        self.count = 0
        self._sums: dict[tuple[int, int], Tensor] = {
            (start, first): torch.zeros(groups, min(_PANEL, stop - first), stop - first, dtype=torch.float64)
            for start, stop, first in self._panels()
        }

    @staticmethod
    def bytes_of(groups: int, columns: int, size: int) -> int:
        """What the sums occupy, about."""
        blocks = -(-columns // size)
        return 8 * groups * blocks * (size * (size + min(size, _PANEL)) // 2)

    def _panels(self) -> Iterator[tuple[int, int, int]]:
        for start in range(0, self.columns, self.size):
            stop = min(start + self.size, self.columns)
            for first in range(start, stop, _PANEL):
                yield start, stop, first

    def add(self, inputs: Tensor, factor: float, count: int) -> None:
        """Add input vectors.

        Parameters
        ----------
        inputs : torch.Tensor
            float32 (groups, vectors, columns).
        factor : float
            How often each counts.
        count : int
            How many vectors they represent.
        """
        self.count += count
        turned = inputs.transpose(1, 2)
        for start, stop, first in self._panels():
            panel = turned[:, first : min(first + _PANEL, stop)]
            product = torch.bmm(panel, inputs[:, :, first:stop])
            self._sums[start, first].add_(product.cpu(), alpha=factor)

    def mean(self) -> NDArray[np.float32]:
        """The moments, (groups, blocks, size, size); zero where a block has no columns."""
        blocks = -(-self.columns // self.size)
        found = np.zeros((self.groups, blocks, self.size, self.size), np.float32)
        for start, stop, first in self._panels():
            block, row, width = start // self.size, first - start, stop - start
            part = (self._sums[start, first] / max(1, self.count)).float().numpy()
            last = row + part.shape[1]
            found[:, block, row:last, row:width] = part
            found[:, block, last:width, row:last] = part[:, :, last - row :].transpose(0, 2, 1)
            square = part[:, :, : last - row]
            found[:, block, row:last, row:last] = (square + square.transpose(0, 2, 1)) / 2
        return found

    @property
    def is_finite(self) -> bool:
        """Whether all sums are finite."""
        return all(bool(torch.isfinite(each).all()) for each in self._sums.values())

    def state(self) -> dict[str, NDArray[np.float64]]:
        """The sums so far, as arrays by name."""
        return {f"{start}/{first}": each.numpy() for (start, first), each in self._sums.items()}

    def restore(self, state: dict[str, NDArray[np.float64]], count: int) -> None:
        """Continue from sums that `state` returned."""
        self.count = count
        for (start, first), each in self._sums.items():
            each.copy_(torch.from_numpy(np.array(state[f"{start}/{first}"])))
