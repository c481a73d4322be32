"""A run over the weights of a model: what is done to each, in its turn, and the records of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Generic, Protocol, TypeVar

from ..errors import Skip
from ..overlap import Result
from .records import identity
from .report import Progress, WeightRecord
from .weights import Weight

ProgressCallback = Callable[[Progress], None]


class Form(Protocol):
    """What stores a weight in a format."""

    @property
    def nbytes(self) -> int:
        """Bytes of all that is stored."""


FormType = TypeVar("FormType", bound=Form)
WeightType = TypeVar("WeightType", bound=Weight)
WorkType = TypeVar("WorkType")


@dataclass(frozen=True)
class Outcome(Generic[FormType]):
    """The result for a weight: its new form and how it was made."""

    form: FormType
    status: str
    method: str
    snr_db: float | None = None


class Run(Generic[WeightType]):
    """Keeps the records of a run, and reports its progress.

    Parameters
    ----------
    weights : sequence of Weight
        All weights of the model, in the order of the records.
    progress : callable or None
        Called with a `Progress` at the start and after each weight.
    """

    def __init__(self, weights: Sequence[WeightType], progress: ProgressCallback | None) -> None:
        self._weights, self._progress = weights, progress
        self._records: dict[Hashable, WeightRecord] = {}
        self._total_weights = self._total_bytes = self._done_weights = self._done_bytes = 0

    def decided(self, decide: Callable[[WeightType], WorkType]) -> list[tuple[WeightType, WorkType]]:
        """The weights that there is something to do to, and what; `decide` raises `Skip` for the others."""
        found = []
        for weight in self._weights:
            try:
                work = decide(weight)
            except Skip as reason:
                self._keep(weight, reason)
                continue
            self._total_weights += prod(weight.shape)
            self._total_bytes += weight.stored_bytes
            found.append((weight, work))
        self._notify("")
        return found

    def settle(self, weight: WeightType, result: Result[Outcome[FormType]]) -> FormType | None:
        """Record the result for a weight; returns its new form, None if it is left unchanged."""
        form, before = None, weight.stored_bytes
        try:
            outcome = result()
        except Skip as reason:
            self._keep(weight, reason)
        else:
            form = outcome.form
            self._record(weight, outcome.status, bytes_after=form.nbytes, method=outcome.method, snr_db=outcome.snr_db)
        self._done_weights += prod(weight.shape)
        self._done_bytes += before
        self._notify(weight.name)
        return form

    def _notify(self, name: str) -> None:
        if self._progress is not None:
            self._progress(Progress(name, self._done_weights, self._total_weights, self._done_bytes, self._total_bytes))

    def _keep(self, weight: WeightType, keep: Skip) -> None:
        self._record(weight, "kept", bytes_after=weight.stored_bytes, reason=str(keep), planned=keep.expected)

    def _record(
        self,
        weight: WeightType,
        status: str,
        *,
        bytes_after: int,
        method: str | None = None,
        reason: str | None = None,
        planned: bool = False,
        snr_db: float | None = None,
    ) -> None:
        self._records[weight.key] = WeightRecord(
            **identity(weight),
            status=status,
            method=method,
            reason=reason,
            planned=planned,
            bits_per_weight=8.0 * bytes_after / max(1, prod(weight.shape)),
            bytes_before=weight.stored_bytes,
            bytes_after=bytes_after,
            snr_db=snr_db,
        )

    @property
    def records(self) -> tuple[WeightRecord, ...]:
        """One record per weight, in the order of the model."""
        return tuple(self._records[weight.key] for weight in self._weights)
