"""Applying the steps of a config to a weight as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from .. import compression
from ..compression.metrics import error
from ..compression.weight_data import NO_DATA, WeightData
from ..errors import NonFiniteError, Skip, UnsuitableWeightError
from ..specs import Spec
from ..tensors import CompressedTensor
from ..tensors.base import decoded_pieces
from .distances import distance

Form = TypeVar("Form")


def compress_stored(
    stored: NDArray[Any] | CompressedTensor,
    steps: tuple[Spec, ...],
    lower: Callable[[CompressedTensor], Form],
    num_threads: int,
    data: WeightData = NO_DATA,
) -> tuple[Form, float]:
    """The result of the steps in the form of a format, and its SNR in dB relative to the stored weight.

    Parameters
    ----------
    stored : numpy.ndarray or CompressedTensor
        The weight.
    steps : tuple of spec
        What is done to it, with its axes and groups filled in.
    lower : callable
        Given a compressed tensor: returns what stores it.
    num_threads : int
        Threads to use.
    data : WeightData
        What is known of it: the importance is for the first step, the hessian for every step that uses one.

    Raises
    ------
    Skip
        If the steps cannot be applied to this weight.
    NonFiniteError
        If it has infinite or NaN values, and a step says that this is an error.
    """
    tensor: Any = stored
    if len(steps) == 1 and not isinstance(stored, CompressedTensor):
        with _suiting(stored, steps[0].nonfinite):
            of_step = data.of_step(steps[0], stored, is_first=True)
            tensor, snr_db = compression.apply_measured(stored, steps[0], data=of_step, num_threads=num_threads)
    else:
        for index, step in enumerate(steps):
            with _suiting(tensor, step.nonfinite):
                of_step = data.of_step(step, tensor, is_first=index == 0)
                tensor = compression.apply(tensor, step, data=of_step, num_threads=num_threads)
        if isinstance(stored, CompressedTensor):
            decoded = decoded_pieces((stored, tensor), num_threads)
            snr_db = distance(((before, after) for before, after in decoded), num_threads).snr_db
        else:
            snr_db = error(stored, tensor, num_threads=num_threads).snr_db
    with _suiting(stored):
        return lower(tensor), snr_db


@contextmanager
def _suiting(weight: Any, nonfinite: str = "keep") -> Iterator[None]:
    """Turn errors of a step that cannot be applied to a weight into `Skip`."""
    try:
        yield
    except UnsuitableWeightError as failure:
        if isinstance(failure, NonFiniteError) and nonfinite == "error":
            raise
        raise Skip(failure.reason) from failure
    except (TypeError, ValueError) as failure:
        if not isinstance(weight, CompressedTensor):
            raise
        raise Skip(f"cannot be compressed further in this way ({failure})") from failure
