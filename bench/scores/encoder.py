"""Does the first line of a docstring find its own body? `--metric score.py:accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def accuracy(samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> float:
    """Mean reciprocal rank in per cent of the right body among all bodies, by the cosine of the embeddings."""
    embeddings = np.stack([np.asarray(next(iter(each.values())), np.float64).ravel() for each in outputs])
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = np.array([int(each["pair"]) for each in samples])
    is_query = np.array([bool(each["is_query"]) for each in samples])
    cosines = embeddings[is_query] @ embeddings[~is_query].T
    right = pairs[is_query][:, None] == pairs[~is_query]
    own = np.where(right, cosines, -np.inf).max(1, keepdims=True)
    ranks = 1 + ((cosines >= own) & ~right).sum(1)
    return float(100 * (1 / ranks).mean())
