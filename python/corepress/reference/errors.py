"""Differences between two arrays."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray


def error_sums(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float, float, float, float]:
    """Return the sums of ``(a - b)**2``, ``a**2``, ``b**2`` and ``a * b``, and the largest ``|a - b|``.

    Parameters
    ----------
    first, second : numpy.ndarray of float16 or float32
        Finite, of one shape.
    """
    pairs = list(zip(first.reshape(-1).tolist(), second.reshape(-1).tolist(), strict=True))
    return (
        math.fsum((a - b) ** 2 for a, b in pairs),
        math.fsum(a * a for a, _ in pairs),
        math.fsum(b * b for _, b in pairs),
        math.fsum(a * b for a, b in pairs),
        max((abs(a - b) for a, b in pairs), default=0.0),
    )
