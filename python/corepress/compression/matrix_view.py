"""How a weight is read as matrices, one per group, that multiply the inputs of a layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MatrixView:
    """A weight read as `groups` matrices W of rows by columns, such that the layer computes W x.

    Attributes
    ----------
    shape : tuple of int
        Shape of the weight.
    row_axes : tuple of int
        Axes whose positions are the rows, in this order: the outputs.
    column_axes : tuple of int
        Axes whose positions are the columns, in this order: the inputs that are summed over.
    groups : int
        Number of matrices; each has its own inputs.
    group_axis : int
        The axis that is divided into `groups` parts of consecutive entries: for a convolution the output channels, for
        a transposed one the input channels. Without groups it has no meaning.

    Raises
    ------
    ValueError
        If the axes are not those of the shape, each once, or if groups do not divide their axis.

    Examples
    --------
    >>> convolution = MatrixView((8, 2, 3, 3), row_axes=(0,), column_axes=(1, 2, 3), groups=4)
    >>> convolution.groups, convolution.rows, convolution.columns
    (4, 2, 18)
    >>> MatrixView((768, 3072), row_axes=(1,), column_axes=(0,)).matrices(np.zeros((768, 3072))).shape
    (1, 3072, 768)
    """

    shape: tuple[int, ...]
    row_axes: tuple[int, ...]
    column_axes: tuple[int, ...]
    groups: int = 1
    group_axis: int = 0

    def __post_init__(self) -> None:
        for name in ("shape", "row_axes", "column_axes"):
            object.__setattr__(self, name, tuple(int(each) for each in getattr(self, name)))
        if sorted(self.row_axes + self.column_axes) != list(range(len(self.shape))):
            raise ValueError(
                f"MatrixView: row_axes {self.row_axes} and column_axes {self.column_axes} must name each axis of shape "
                f"{self.shape} once"
            )
        if self.groups < 1:
            raise ValueError(f"MatrixView: groups must be at least 1, not {self.groups}")
        if self.groups > 1 and not 0 <= self.group_axis < len(self.shape):
            raise ValueError(f"MatrixView: group_axis {self.group_axis} is not an axis of shape {self.shape}")
        if self.groups > 1 and self.shape[self.group_axis] % self.groups:
            raise ValueError(
                f"MatrixView: {self.groups} groups do not divide axis {self.group_axis} of shape {self.shape}"
            )

    @classmethod
    def of_output_axis(cls, shape: tuple[int, ...], axis: int) -> MatrixView:
        """The view whose rows are one axis and whose columns are all others, in row-major order."""
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"MatrixView: axis {axis} is not an axis of shape {tuple(shape)}")
        axis %= len(shape)
        return cls(tuple(shape), (axis,), tuple(other for other in range(len(shape)) if other != axis))

    @property
    def rows(self) -> int:
        """Number of rows of each matrix."""
        return self._length(self.row_axes)

    @property
    def columns(self) -> int:
        """Number of columns of each matrix."""
        return self._length(self.column_axes)

    def _length(self, axes: tuple[int, ...]) -> int:
        divided = self.groups if self.groups > 1 and self.group_axis in axes else 1
        return prod(self.shape[axis] for axis in axes) // divided

    def matrices(self, array: NDArray[Any]) -> NDArray[Any]:
        """Read an array of the weight's shape as (groups, rows, columns); a view of it where it can be.

        Raises
        ------
        ValueError
            If the array has another shape.
        """
        if array.shape != self.shape:
            raise ValueError(f"MatrixView: array has shape {array.shape}, the view {self.shape}")
        divided, order = self._divided_shape(), self._order()
        return array.reshape(divided).transpose(order).reshape(self.groups, self.rows, self.columns)

    def restore(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """The array of the weight's shape, contiguous, that `matrices` reads as these.

        Raises
        ------
        ValueError
            If there are not as many matrices, rows and columns.
        """
        expected = (self.groups, self.rows, self.columns)
        if matrices.shape != expected:
            raise ValueError(f"MatrixView: matrices have shape {matrices.shape}, the view {expected}")
        divided, order = self._divided_shape(), self._order()
        turned = matrices.reshape([divided[axis] for axis in order])
        return np.ascontiguousarray(turned.transpose(np.argsort(order))).reshape(self.shape)

    def _divided_shape(self) -> tuple[int, ...]:
        """The shape with the number of groups before the axis that they divide."""
        if self.groups == 1:
            return (1, *self.shape)
        axis = self.group_axis
        return (*self.shape[:axis], self.groups, self.shape[axis] // self.groups, *self.shape[axis + 1 :])

    def _order(self) -> tuple[int, ...]:
        """The axes of the divided shape in the order groups, rows, columns."""
        first = self.group_axis if self.groups > 1 else 0
        moved = (axis + (axis >= first) for axis in self.row_axes + self.column_axes)
        return (first, *moved)

    def positions(self, axis: int) -> tuple[bool, NDArray[np.int64]]:
        """Where the entries of one axis lie in the matrices.

        Parameters
        ----------
        axis : int
            An axis of the weight, counted from the front.

        Returns
        -------
        along_rows : bool
            Whether the axis is one of the rows' instead of the columns'.
        entries : numpy.ndarray of int64
            The entry of the axis that each row (groups, rows), or each column (groups, columns), belongs to.
        """
        along_rows = axis in self.row_axes
        kept = {*(self.row_axes if along_rows else self.column_axes)} | (
            {self.group_axis} if self.groups > 1 else set()
        )
        small = tuple(length if other in kept else 1 for other, length in enumerate(self.shape))
        numbers = np.arange(small[axis]).reshape([-1 if other == axis else 1 for other in range(len(small))])
        matrices = replace(self, shape=small).matrices(np.broadcast_to(numbers, small))
        return along_rows, np.ascontiguousarray(matrices[:, :, 0] if along_rows else matrices[:, 0, :])
