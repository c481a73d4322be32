"""What is known of a weight besides its values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_importance, require_importance
from ..intake import NUMBERS, as_array
from ..specs import Spec


@dataclass(frozen=True, eq=False)
class WeightData:
    """What is known of a weight besides its values: arrays of its shape, which are checked where they are used.

    Attributes
    ----------
    importance : array_like or None
        How much each element's squared error counts; None for equal importance.
    """

    importance: Any = None

    def require_use(self, spec: Spec) -> None:
        """ValueError if a spec has no use for this."""
        if self.importance is not None and spec.importance_needs is not None:
            raise ValueError(f"{spec.verb}: {spec.importance_needs}")

    def require_plain(self, verb: str) -> None:
        """ValueError if there is data for a compressed tensor, to whose elements it does not apply."""
        if self.importance is not None:
            raise ValueError(f"{verb}: importance is for arrays, not for compressed tensors")

    def check(self, verb: str, name: str, shape: tuple[int, ...]) -> None:
        """TypeError or ValueError if this does not fit a weight of a shape; `name` is what messages call it."""
        if self.importance is not None:
            require_importance(verb, f"importance of {name}", self.importance, shape)

    def mapped(self, part: Callable[[NDArray[Any]], Any]) -> WeightData:
        """The data of a part of the weight, which `part` returns of an array of the weight's shape."""
        if self.importance is None:
            return self
        return WeightData(part(as_array("importance", "importance", self.importance, NUMBERS)))

    def error_weights(self, verb: str, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
        """The importance of each element as the kernels take it, checked."""
        return None if self.importance is None else as_importance(verb, self.importance, shape)


NO_DATA = WeightData()
