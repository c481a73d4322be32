"""What compressing would do to a weight, without doing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..compression.weight_data import NO_DATA
from ..errors import NonFiniteError, Skip
from ..specs import Palettize, Spec
from ..tensors import CompressedTensor
from .decisions import Decision, Decisions, WeightType
from .planned import PlannedWeight
from .records import identity
from .sampling import sample_rows
from .steps import compress_stored

FormType = TypeVar("FormType", covariant=True)


class SizeOf(Protocol[FormType]):
    """The size of a weight in a form; see `corepress.engine.opened.StoredSize`."""

    @property
    def form(self) -> FormType:
        """The form, without data."""

    @property
    def exact(self) -> bool:
        """Whether the size is certain."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""


def planned(
    weight: WeightType,
    decisions: Decisions[WeightType],
    stored_size: Callable[[WeightType, Sequence[Spec]], SizeOf[FormType]],
) -> tuple[PlannedWeight, FormType | None, Decision | None]:
    """What is to be done to a weight.

    Parameters
    ----------
    weight : Weight
        The weight.
    decisions : Decisions
        Those of the run.
    stored_size : callable
        Given the weight and steps: its size after them; may raise `Skip`.

    Returns
    -------
    record : PlannedWeight
        The record.
    form, decision
        The form without data, and the decision; None where the weight is left unchanged.
    """
    size = weight.stored_bytes
    form, decision, exact, keep = None, None, True, None
    try:
        decision = decisions.decide(weight)
        try:
            stored = stored_size(weight, decision.steps)
        except Skip as reason:
            raise decisions.kept(weight, reason) from None
        exact = stored.exact
        if exact:
            decisions.require_smaller(weight, stored.nbytes)
        # Estimates are the most that it can be; if it is that much, the weight is left unchanged.
        form = stored.form if exact or stored.nbytes < size else None
    except Skip as reason:
        keep = reason
    after = size if form is None else stored.nbytes
    record = PlannedWeight(
        **identity(weight),
        status="keep" if decision is None or keep else "compress",
        method=None if decision is None or keep else decision.description,
        reason=None if keep is None else str(keep),
        planned=keep is not None and keep.expected,
        bits_per_weight=8.0 * after / max(1, prod(weight.shape)),
        bytes_before=size,
        bytes_after=after,
        exact=exact,
    )
    return record, form, None if keep else decision


def expected_snr_db(
    weight: WeightType,
    decision: Decision,
    stored_values: Callable[[], NDArray[Any] | CompressedTensor],
    lower: Callable[[CompressedTensor], Any],
    num_threads: int,
) -> float | None:
    """The loss in some rows of a weight; None if it is already compressed, or if the loss cannot be estimated.

    Parameters
    ----------
    weight, decision
        The weight, and what is done to it.
    stored_values, lower
        As for `corepress.engine.steps.compressed_outcome`.
    num_threads : int
        Threads to use.
    """
    custom = any(isinstance(step, Palettize) and step.mode == "custom" for step in decision.steps)
    if weight.is_compressed or custom:
        return None
    # Error feedback is between all columns of a row: the loss in a weight is then that of its nearest values, or more.
    known = decision.data if decision.data.importance is not None else NO_DATA
    data = known.mapped(lambda array: sample_rows(array, decision.steps))
    try:
        stored = stored_values()
        rows = sample_rows(stored, decision.steps) if isinstance(stored, np.ndarray) else None
        return None if rows is None else compress_stored(rows, decision.steps, lower, num_threads, data)[1]
    except (Skip, NonFiniteError):
        return None
