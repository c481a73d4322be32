"""Rows of large weights by which candidates are judged.

Rows of a weight do not depend on each other when it is compressed with second moments, but for their palette, and their
errors are not correlated. So the expectation of ``<E, g>^2`` is the sum of that of each row, and a sample of the rows
is enough: rows with larger gradients, and larger errors without second moments, are more likely to be in it, and each
counts by the inverse of its probability (Horvitz and Thompson's estimator).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..compression.matrix_view import MatrixView
from ..runtime.torch.gradients import watched
from ..runtime.torch.module import ProgramModule

JUDGED_ROWS = 128  # of each weight
_EVEN = 0.25  # of the probability is the same for all rows


@dataclass(frozen=True, eq=False)
class Part:
    """Rows by which all rows of a weight are judged.

    Attributes
    ----------
    axis : int
        The axis of the weight whose entries they are.
    entries : numpy.ndarray of int64
        Which ones, ascending.
    probabilities : numpy.ndarray of float64
        Of being taken, for each of them.
    """

    axis: int
    entries: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @classmethod
    def of(cls, view: MatrixView, sizes: NDArray[np.float64], most: int = JUDGED_ROWS) -> Part:
        """Some rows.

        Parameters
        ----------
        view : MatrixView
            How the weight is read.
        sizes : numpy.ndarray of float64
            How much each entry of the first axis of its rows is thought to contribute.
        most : int
            How many to take.
        """
        sizes = sizes + _EVEN * sizes.mean() if sizes.any() else np.ones_like(sizes)
        probabilities = _probabilities(sizes, most)
        # One entry for each unit of the sum of the probabilities.
        entries = np.searchsorted(np.cumsum(probabilities), np.arange(most) + 0.5)
        entries = np.unique(np.minimum(entries, len(sizes) - 1))
        return cls(view.row_axes[0], entries, probabilities[entries])

    def taken(self, array: NDArray[Any]) -> NDArray[Any]:
        """These rows of an array of the weight's shape, contiguous."""
        return np.ascontiguousarray(array.take(self.entries, self.axis))

    def products(self, errors: Tensor, gradients: Tensor) -> Tensor:
        """``<E, g>`` of each entry, of arrays that have these entries only."""
        return _products_of_rows(errors, gradients, self.axis).double()

    def variance(self, sums: NDArray[np.float64]) -> float:
        """The variance of the estimated total of what each entry has, which comes from the choice of entries."""
        rest = 1 - self.probabilities
        count, weight = len(sums), rest.sum()
        if count < 2 or weight <= 0:
            return 0.0
        expanded = sums / self.probabilities
        mean = (rest * expanded).sum() / weight
        return float(count / (count - 1) * (rest * (expanded - mean) ** 2).sum())


def has_part(view: MatrixView | None, most: int = JUDGED_ROWS) -> bool:
    """Whether a weight has enough rows to be judged by some; those of several groups are judged by all."""
    return view is not None and view.groups == 1 and view.shape[view.row_axes[0]] >= 2 * most


def _probabilities(sizes: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Probabilities in proportion to sizes, whose sum is a count; at most 1."""
    certain = np.zeros(len(sizes), bool)
    while True:
        rest = count - certain.sum()
        found: NDArray[np.float64] = np.where(certain, 1.0, rest * sizes / sizes[~certain].sum())
        more = (found >= 1) & ~certain
        if not more.any():
            return found
        certain |= more


def _products_of_rows(first: Tensor, second: Tensor, axis: int) -> Tensor:
    """The scalar product of each row of both, without a tensor of all products."""
    left, right = (each.movedim(axis, 0).flatten(1) for each in (first, second))
    return torch.bmm(left[:, None, :], right[:, :, None]).reshape(-1)


class RowSquares:
    """Adds the squares of gradients up for each row of some weights.

    Parameters
    ----------
    axes : dict of str to int
        By parameters of the module, the axis whose entries are the rows.

    Attributes
    ----------
    sums : dict of str to numpy.ndarray of float64
        By parameter.
    """

    def __init__(self, axes: Mapping[str, int]) -> None:
        self._axes = axes
        self.sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(1))

    @contextmanager
    def watching(self, module: ProgramModule) -> Iterator[None]:
        """Run the module and go back through it in this context."""
        with watched(module, self._axes, self._receive):
            yield

    def _receive(self, parameter: str, gradient: Tensor) -> None:
        gradient = gradient.detach()
        squares = _products_of_rows(gradient, gradient, self._axes[parameter])
        self.sums[parameter] = self.sums[parameter] + squares.double().cpu().numpy()
