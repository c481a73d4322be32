"""Are tones in tune? `--metric score.py:accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

LOWEST_BIN, BIN = 1997.3794084376191, 20.0  # cents above 10 Hz


def accuracy(samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> float:
    """Raw pitch accuracy in per cent: pitches within 50 cents, from the nine bins around the largest probability."""
    probabilities = np.stack([np.asarray(next(iter(each.values())), np.float64).ravel() for each in outputs])
    bins = np.arange(probabilities.shape[1])
    near = np.abs(bins - probabilities.argmax(1)[:, None]) <= 4
    weights = np.where(near, probabilities, 0)
    found = (weights * (LOWEST_BIN + BIN * bins)).sum(1) / weights.sum(1)
    truth = np.array([float(each["cents"]) for each in samples])
    return float(100 * (np.abs(found - truth) <= 50).mean())
