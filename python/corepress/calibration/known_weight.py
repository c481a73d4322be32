"""A weight that calibration looks at, the same for packages and assets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..compression.matrix_view import MatrixView
from .block_sums import BlockSums, block_columns
from .statistics import Sensitivity, WeightStatistics

Moments: TypeAlias = dict[str, tuple[NDArray[np.float32] | None, int]]
"""The second moments of each weight, and how many vectors they are of."""


class Reading(Protocol):
    """How an operation reads a weight; without a view there is a reason why it has none."""

    @property
    def view(self) -> MatrixView | None: ...

    @property
    def reason(self) -> str | None: ...

    @property
    def kernel(self) -> tuple[int, ...]: ...


@dataclass(kw_only=True)
class KnownWeight:
    """A weight, and what is known of it."""

    name: str
    shape: tuple[int, ...]
    digest: str
    view: MatrixView | None = None
    size: int = 0  # columns of a block
    reason: str | None = None  # why there is no view

    @property
    def moment_bytes(self) -> int:
        """What the sums of its second moments occupy."""
        return 0 if self.view is None else BlockSums.bytes_of(self.view.groups, self.view.columns, self.size)

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Groups, columns, and columns of a block of its second moments."""
        assert self.view is not None
        return self.view.groups, self.view.columns, self.size

    def settle(self, uses: Sequence[Reading], most: int) -> None:
        """Take the one way in which all uses read it, or the reason against it; blocks have at most `most` columns."""
        reasons = [use.reason for use in uses if use.view is None]
        views = {use.view for use in uses}
        if reasons:
            self.reason = reasons[0]
        elif len(views) > 1:
            self.reason = "the operations that use it read it in different ways"
        else:
            (self.view,) = views
            assert self.view is not None
            of_channel = prod(max(use.kernel for use in uses))
            self.size = block_columns(self.view.columns, of_channel, most)

    def statistics(
        self, moments: Moments, sensitivities: Mapping[str, Sensitivity] | None = None, fisher: Any = None
    ) -> WeightStatistics:
        """What a user gets to know of it."""
        hessian, count = moments.get(self.name, (None, 0))
        reason = self.reason
        if hessian is None and reason is None:
            reason = "its inputs were not finite" if count else "no sample reached it"
        return WeightStatistics(
            digest=self.digest,
            shape=self.shape,
            view=None if hessian is None else self.view,
            count=count,
            hessian=hessian,
            fisher=fisher,
            sensitivities=dict(sensitivities or {}),
            reason=None if hessian is not None else reason,
        )
