"""Are faces told from what are none? `--metric score.py:accuracy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def accuracy(samples: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> float:
    """Area under the curve of true by false positives, in per cent: how often a face has the larger probability."""
    scores = np.array([float(np.asarray(each["probability"]).ravel()[1]) for each in outputs])
    is_face = np.array([bool(each["is_face"]) for each in samples])
    faces, others = scores[is_face][:, None], scores[~is_face]
    return float(100 * ((faces > others) + 0.5 * (faces == others)).mean())
