"""Weights as candidates store them, to judge the error of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import compression
from ..compression.weight_data import WeightData
from ..config.candidates import Steps, candidate_key
from ..coreml.program.program import Weight
from ..coreml.resolution import resolve_all
from ..errors import Skip, UnsuitableWeightError
from ..tensors import CompressedTensor


def references_of(
    weight: Weight, stored: NDArray[Any], candidates: Sequence[Steps], data: WeightData, num_threads: int
) -> dict[str, CompressedTensor]:
    """A weight as each candidate stores it, by the candidate's key; candidates that do not fit it are left out.

    Parameters
    ----------
    weight, stored
        The weight and its values.
    candidates : sequence of tuple of Spec
        The candidates.
    data : WeightData
        What is known of it; candidates that have no use for this are made without.
    num_threads : int
        Threads to use.
    """
    made = ((steps, _made(weight, stored, steps, data, num_threads)) for steps in candidates)
    return {candidate_key(steps): tensor for steps, tensor in made if tensor is not None}


def _made(
    weight: Weight, stored: NDArray[Any], steps: Steps, data: WeightData, num_threads: int
) -> CompressedTensor | None:
    try:
        tensor: CompressedTensor = compression.apply_steps(
            stored, resolve_all(steps, weight), data=data, num_threads=num_threads
        )
    except (Skip, UnsuitableWeightError):
        return None
    return tensor


def error_of(tensor: CompressedTensor, stored: NDArray[Any], num_threads: int) -> NDArray[np.float32]:
    """What a candidate changes, in float32, one after another."""
    dense: NDArray[np.float32] = tensor.dense(num_threads=num_threads).astype(np.float32).reshape(-1)
    dense -= stored.reshape(-1)
    return dense
