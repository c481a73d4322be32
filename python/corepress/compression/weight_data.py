"""What is known of a weight besides its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_importance, require_importance
from ..intake import NUMBERS, as_array
from ..specs import Spec
from ..tensors import CompressedTensor
from .error_feedback import Moments, checked_moments, hessian_axis, uses_hessian
from .matrix_view import MatrixView


@dataclass(frozen=True, eq=False)
class WeightData:
    """What is known of a weight besides its values; arrays are checked where they are used.

    Attributes
    ----------
    importance : array_like or None
        How much each element's squared error counts, in the weight's shape; None for equal importance.
    hessian : array_like of float32 or float64, Moments, or None
        Second moments E[x x^T] of the inputs that the weight multiplies: (c, c), block by block of its columns
        (blocks, c, c), or for each group of the view (groups, c, c) or (groups, blocks, c, c). What is beyond the
        columns is ignored. Excludes `importance`.
    view : MatrixView or None
        How the weight multiplies the inputs; None: its rows are the output axis of the spec, its columns all others.
    dampening : float
        How many times the mean of the hessian's diagonal is added to it.

    Raises
    ------
    ValueError
        If there are both importance and a hessian.
    """

    importance: Any = None
    hessian: Any = None
    view: MatrixView | None = None
    dampening: float = 0.01

    def __post_init__(self) -> None:
        if self.importance is not None and self.hessian is not None:
            raise ValueError("WeightData: give importance or hessian, not both")

    def require_use(self, spec: Spec) -> None:
        """ValueError if a spec has no use for this."""
        if self.importance is not None and spec.importance_needs is not None:
            raise ValueError(f"{spec.verb}: {spec.importance_needs}")
        if self.hessian is not None and spec.hessian_needs is not None:
            raise ValueError(f"{spec.verb}: {spec.hessian_needs}")

    def prepared(self, shape: tuple[int, ...]) -> WeightData:
        """The same for several candidates of a weight: second moments are checked, and their factors made, once.

        The factors are in memory as long as this is.
        """
        if self.hessian is None or self.view is None or isinstance(self.hessian, Moments):
            return self
        moments = checked_moments("apply", self.hessian, self.view, self.dampening, shape, 0)
        return replace(self, hessian=replace(moments, kept=[]))

    def with_rows_of_refit(self, rows: int) -> WeightData:
        """The same, prepared before, for palettes of few bits that are fitted to this many rows; 0 for none."""
        if not isinstance(self.hessian, Moments):
            return self
        return replace(self, hessian=replace(self.hessian, rows_of_refit=rows))

    def usable(self, spec: Spec) -> WeightData:
        """This, or nothing if a spec has no use for it."""
        try:
            self.require_use(spec)
        except ValueError:
            return NO_DATA
        return self

    def require_plain(self, verb: str) -> None:
        """ValueError if there is importance for a compressed tensor, to whose elements it does not apply."""
        if self.importance is not None:
            raise ValueError(f"{verb}: importance is for arrays, not for compressed tensors")

    def check(self, verb: str, name: str, shape: tuple[int, ...]) -> None:
        """TypeError or ValueError if this does not fit a weight of a shape; `name` is what messages call it."""
        if self.importance is not None:
            require_importance(verb, f"importance of {name}", self.importance, shape)

    def mapped(self, part: Callable[[NDArray[Any]], Any]) -> WeightData:
        """The importance of a part of the weight, which `part` returns of an array of the weight's shape.

        Second moments are not known of a part.
        """
        if self.importance is None:
            return WeightData()
        return WeightData(part(as_array("importance", "importance", self.importance, NUMBERS)))

    def of_step(self, spec: Spec, tensor: Any, *, is_first: bool) -> WeightData:
        """What one of several steps uses of this for a weight that earlier steps made `tensor`.

        Importance is for the first step; second moments for each that has a use for them.
        """
        hessian = self.hessian if uses_hessian(spec, tensor) else None
        return replace(self, importance=self.importance if is_first else None, hessian=hessian)

    def error_weights(self, verb: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """The importance of each element as the kernels take it, checked."""
        return None if self.importance is None else as_importance(verb, self.importance, shape)

    def moments(self, spec: Spec, weight: NDArray[Any] | CompressedTensor) -> Moments | None:
        """The hessian as the kernels take it, checked; ValueError for a compressed tensor that has no use for it."""
        if self.hessian is None:
            return None
        self.require_use(spec)
        if not uses_hessian(spec, weight):
            raise ValueError(
                f"{spec.verb}: hessian is for arrays, and for palettizing and quantizing the values of a SparseTensor, "
                f"not for {weight!r}"
            )
        return checked_moments(spec.verb, self.hessian, self.view, self.dampening, weight.shape, hessian_axis(spec))


NO_DATA = WeightData()
