"""Representative parts of weights: the loss from compressing them is about that of the whole weight."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..specs import Prune, Quantize, Spec

SAMPLE_SIZE = 1 << 17  # elements, of which 4 bits lose the same to some hundredths of a decibel
_LARGEST_UNIT = 1 << 22


def sample_rows(weight: NDArray[Any], steps: Sequence[Spec]) -> NDArray[Any] | None:
    """Rows of a weight, evenly spread along its first axis, with whole groups and blocks.

    Parameters
    ----------
    weight : numpy.ndarray
        The weight, of rank 2 or more.
    steps : sequence of spec
        What is to be done to it, with its axes filled in.

    Returns
    -------
    numpy.ndarray or None
        About `SAMPLE_SIZE` elements, or the whole weight if it is not much larger; None if a single group is too large.
    """
    length, row = weight.shape[0], prod(weight.shape[1:])
    unit = lcm(*(_rows_together(step, weight.shape) for step in steps))
    count = -(-SAMPLE_SIZE // (unit * row))
    if unit * row > _LARGEST_UNIT:
        return None
    if 2 * count * unit >= length:
        return weight if length * row <= 2 * _LARGEST_UNIT else None
    starts = (np.arange(count) * (length // unit) // count) * unit
    return np.concatenate([weight[start : start + unit] for start in starts])


def _rows_together(step: Spec, shape: tuple[int, ...]) -> int:
    """The number of rows that a step needs together."""
    if isinstance(step, Quantize):
        if step.granularity == "per_block" and not isinstance(step.block_size, int):
            return step.block_size[0] or shape[0]
        return 1
    if isinstance(step, Prune):
        if step.axis != 0:
            return 1
        return step.n_m_ratio[1] if step.n_m_ratio is not None else step.block_size or 1
    if step.channel_axis is None or step.channel_axis % len(shape):
        return 1
    return lcm(step.group_size if step.granularity == "per_grouped_channel" else 1, step.cluster_dim)
