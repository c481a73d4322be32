"""Weights as options store them, with what calibration knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .. import compression
from ..calibration.references import usable
from ..compression.weight_data import NO_DATA, WeightData
from ..coreml.calibrated import feedback_data
from ..specs import Spec
from ..tensors import CompressedTensor


def data_of(known: Any) -> WeightData:
    """What steps are given of a weight's statistics; nothing where there are no second moments."""
    return NO_DATA if known is None else feedback_data(known.hessian, known.view)


def made(
    stored: NDArray[Any] | CompressedTensor, steps: Sequence[Spec], data: WeightData, num_threads: int
) -> CompressedTensor:
    """A weight after some steps, as `compress` makes it."""
    tensor: Any = stored
    for step in steps:
        tensor = compression.apply(tensor, step, data=usable(data, step), num_threads=num_threads)
        data = data if data.importance is None else NO_DATA
    result: CompressedTensor = tensor
    return result
