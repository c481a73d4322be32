"""Weights as options store them, with what calibration knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .. import compression
from ..compression.weight_data import NO_DATA, WeightData
from ..coreml.calibrated import feedback_data
from ..specs import Spec
from ..tensors import CompressedTensor


def data_of(known: Any, stored: Any, steps: Sequence[Spec]) -> WeightData:
    """What `compress` gives steps of a weight's statistics; nothing where it gives nothing."""
    if known is None or isinstance(stored, CompressedTensor):
        return NO_DATA
    data = feedback_data(known.hessian, known.view)
    try:
        for step in steps:
            data.require_use(step)
    except ValueError:
        return NO_DATA
    return data


def made(stored: NDArray[Any] | CompressedTensor, steps: Sequence[Spec], known: Any, num_threads: int) -> Any:
    """A weight after some steps, as `compress` makes it with the statistics of the weight."""
    data = data_of(known, stored, steps)
    tensor: Any = stored
    for index, step in enumerate(steps):
        of_step = data.of_step(step, tensor, is_first=index == 0)
        tensor = compression.apply(tensor, step, data=of_step, num_threads=num_threads)
    return tensor
