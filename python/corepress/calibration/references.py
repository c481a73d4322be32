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
from ..specs import Spec
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
    made = ((candidate_key(steps), _made(weight, stored, steps, data, num_threads)) for steps in candidates)
    return {key: tensor for key, tensor in made if tensor is not None}


def _made(
    weight: Weight, stored: NDArray[Any], steps: Steps, data: WeightData, num_threads: int
) -> CompressedTensor | None:
    """A weight as a candidate stores it; None if the candidate does not fit it."""
    try:
        return _compressed(stored, resolve_all(steps, weight), data, num_threads)
    except (Skip, UnsuitableWeightError):
        return None


def _compressed(stored: NDArray[Any], steps: Sequence[Spec], data: WeightData, num_threads: int) -> CompressedTensor:
    tensor: Any = stored
    for index, step in enumerate(steps):
        of_step = data.of_step(step, tensor, is_first=index == 0)
        tensor = compression.apply(tensor, step, data=of_step, num_threads=num_threads)
    result: CompressedTensor = tensor
    return result


def error_of(tensor: CompressedTensor, stored: NDArray[Any], num_threads: int) -> NDArray[np.float32]:
    """What a candidate changes, in float32, one after another."""
    dense: NDArray[np.float32] = tensor.dense(num_threads=num_threads).astype(np.float32).reshape(-1)
    dense -= stored.reshape(-1)
    return dense
