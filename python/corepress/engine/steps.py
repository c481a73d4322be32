"""Applying the steps of a config to a weight as it is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .. import compression
from ..compression.metrics import error
from ..compression.weight_data import NO_DATA, WeightData
from ..errors import NonFiniteError, Skip, UnsuitableWeightError
from ..mapped_files import release_array
from ..specs import Spec
from ..tensors import CompressedTensor
from ..tensors.base import decoded_pieces
from .decisions import Decision, Decisions, WeightType
from .distances import distance
from .run import FormType, Outcome

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
        tensor = _after(stored, steps, num_threads, data)
        if isinstance(stored, CompressedTensor):
            decoded = decoded_pieces((stored, tensor), num_threads)
            snr_db = distance(((before, after) for before, after in decoded), num_threads).snr_db
        else:
            snr_db = error(stored, tensor, num_threads=num_threads).snr_db
    with _suiting(stored):
        return lower(tensor), snr_db


def unmeasured_form(
    stored: NDArray[Any] | CompressedTensor,
    steps: tuple[Spec, ...],
    lower: Callable[[CompressedTensor], Form],
    num_threads: int,
    data: WeightData = NO_DATA,
) -> Form:
    """Like `compress_stored`, without the SNR, which can take as long as the rest."""
    tensor = _after(stored, steps, num_threads, data)
    with _suiting(stored):
        return lower(tensor)


def _after(stored: NDArray[Any] | CompressedTensor, steps: tuple[Spec, ...], num_threads: int, data: WeightData) -> Any:
    """A weight after the steps."""
    tensor: Any = stored
    for index, step in enumerate(steps):
        with _suiting(tensor, step.nonfinite):
            of_step = data.of_step(step, tensor, is_first=index == 0)
            tensor = compression.apply(tensor, step, data=of_step, num_threads=num_threads)
    return tensor


def compressed_outcome(
    weight: WeightType,
    decision: Decision,
    decisions: Decisions[WeightType],
    made: tuple[Sequence[Spec], CompressedTensor | None],
    stored_values: Callable[[], NDArray[Any] | CompressedTensor],
    lower: Callable[[CompressedTensor], FormType],
    num_threads: int,
    *,
    is_measured: bool = True,
) -> Outcome[FormType]:
    """What a config does to a weight, in its turn.

    Parameters
    ----------
    weight : Weight
        The weight.
    decision : Decision
        What is done to it.
    decisions : Decisions
        Those of the run.
    made : tuple
        Steps, and the weight after these, if it was made already; that is used if the steps are the same.
    stored_values : callable
        Returns the values of the weight, or the tensor that it is stored as; may raise `Skip`.
    lower : callable
        As for `compress_stored`.
    num_threads : int
        Threads to use.
    is_measured : bool
        Whether the outcome has the SNR; where nobody asks for it, this saves time.

    Raises
    ------
    Skip
        If it is left unchanged.
    ValueError
        If that is an error with this config.
    """
    steps, tensor = made
    try:
        stored = stored_values()
        if tensor is not None and steps == decision.steps:
            snr_db: float | None = error(stored, tensor, num_threads=num_threads).snr_db
            form = lower(tensor)
        else:
            known = stored, decision.steps, lower, num_threads, decision.data
            form, snr_db = compress_stored(*known) if is_measured else (unmeasured_form(*known), None)
            if isinstance(decision.data.hessian, np.ndarray):
                release_array(decision.data.hessian)
        decisions.require_smaller(weight, form.nbytes)
    except Skip as reason:
        raise decisions.kept(weight, reason) from None
    except NonFiniteError as failure:
        raise ValueError(f"{weight.name}: {failure}") from failure
    return Outcome(form, "compressed", decision.description, snr_db)


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
