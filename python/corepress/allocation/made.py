"""Weights as options store them, with what calibration knows of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from .. import compression
from ..compression.weight_data import NO_DATA
from ..engine.calibrated import feedback_data
from ..mapped_files import release_array
from ..specs import Spec
from ..tensors import CompressedTensor


def made(
    stored: NDArray[Any] | CompressedTensor, options: Sequence[Sequence[Spec]], known: Any, num_threads: int
) -> list[Any]:
    """A weight after the steps of each of some options, as `compress` makes it with the statistics of the weight."""
    plain = known is None or isinstance(stored, CompressedTensor)
    data = NO_DATA if plain else feedback_data(known.hessian, known.view)
    if len(options) > 1:
        data = data.prepared(stored.shape)
    found = [compression.apply_steps(stored, steps, data=data, num_threads=num_threads) for steps in options]
    if known is not None and known.hessian is not None:
        release_array(known.hessian)
    return found
