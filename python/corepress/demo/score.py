"""Are digits read right? `--metric score.py:accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def accuracy(samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> float:
    """Fraction of digits whose class is the likeliest, in per cent."""
    found = [int(np.asarray(next(iter(each.values()))).argmax()) for each in outputs]
    return float(100 * np.mean([here == int(each["digit"]) for here, each in zip(found, samples, strict=True)]))
