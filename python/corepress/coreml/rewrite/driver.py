"""Drives a run: open, decide per weight, rewrite, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

from ... import system
from ...errors import Skip
from ...overlap import Result, Task
from ...sources import unchanged
from ..format.package import Package
from ..format.package_writer import PackageWriter
from ..format.values import ValueReader
from ..operations import OperationForm
from ..program.program import Program, Weight
from ..program.storage import check_stored, stored_bytes, visible_weights
from ..reports.records import identity
from ..reports.report import Progress, Report, WeightRecord
from .rewriter import Edit, rewrite

ProgressCallback = Callable[[Progress], None]
StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Outcome:
    """The result for a weight: its new form and how it was made."""

    form: OperationForm
    status: str
    method: str
    snr_db: float | None = None


Work = Callable[[int], Outcome]  # given the number of threads to use; it may run at the same time as others
Decide = Callable[[Program, ValueReader, Weight], Work]


class _Run:
    def __init__(self, weights: list[Weight], progress: ProgressCallback | None) -> None:
        self._weights, self._progress = weights, progress
        self._records: dict[Weight, WeightRecord] = {}
        self._total_weights = self._total_bytes = self._done_weights = self._done_bytes = 0

    def edits(self, decide: Callable[[Weight], Work]) -> list[Edit]:
        """Decide for each weight whether there is something to do to it."""
        edits = []
        for weight in self._weights:
            try:
                work = decide(weight)
            except Skip as reason:
                self._keep(weight, reason)
                continue
            self._total_weights += prod(weight.first.shape)
            self._total_bytes += stored_bytes(weight)
            edits.append(Edit(weight, Task(work, _memory(weight)), partial(self._settle, weight)))
        self._notify("")
        return edits

    def _settle(self, weight: Weight, result: Result[Outcome]) -> OperationForm | None:
        form = None
        try:
            outcome = result()
        except Skip as reason:
            self._keep(weight, reason)
        else:
            form = outcome.form
            bytes_after = form.nbytes
            self._record(weight, outcome.status, bytes_after=bytes_after, method=outcome.method, snr_db=outcome.snr_db)
        self._done_weights += prod(weight.first.shape)
        self._done_bytes += self._records[weight].bytes_before
        self._notify(weight.first.name)
        return form

    def _notify(self, name: str) -> None:
        if self._progress is not None:
            self._progress(Progress(name, self._done_weights, self._total_weights, self._done_bytes, self._total_bytes))

    def _keep(self, weight: Weight, keep: Skip) -> None:
        self._record(weight, "kept", bytes_after=stored_bytes(weight), reason=str(keep), planned=keep.expected)

    def _record(
        self,
        weight: Weight,
        status: str,
        *,
        bytes_after: int,
        method: str | None = None,
        reason: str | None = None,
        planned: bool = False,
        snr_db: float | None = None,
    ) -> None:
        self._records[weight] = WeightRecord(
            **identity(weight),
            status=status,
            method=method,
            reason=reason,
            planned=planned,
            bits_per_weight=8.0 * bytes_after / max(1, prod(weight.first.shape)),
            bytes_before=stored_bytes(weight),
            bytes_after=bytes_after,
            snr_db=snr_db,
        )

    @property
    def records(self) -> tuple[WeightRecord, ...]:
        """One record per weight, in program order."""
        return tuple(self._records[weight] for weight in self._weights)


def _memory(weight: Weight) -> int:
    """Bytes of a weight in its larger form."""
    first = weight.first
    return max(stored_bytes(weight), first.data_type.byte_count(prod(first.shape)))


@unchanged("source", at_end=False)
def transform(
    source: StrPath,
    destination: StrPath,
    decide: Decide,
    *,
    prepare: Callable[[Program], None],
    progress: ProgressCallback | None,
    overwrite: bool,
    num_threads: int | None,
    edit: Callable[[Program], None] | None = None,
) -> Report:
    """Write a copy of a package in which some weights are stored in another form.

    Parameters
    ----------
    source, destination : path-like
        The packages.
    decide : callable
        Given the program, a reader and a weight: returns a function that makes the new form when its turn comes, on any
        thread. Both may raise `Skip`.
    prepare : callable
        Given the program: raises if the run cannot succeed.
    progress : callable or None
        Called at the start and after each weight.
    overwrite : bool
        Replace an existing destination.
    num_threads : int or None
        Threads that the weights share; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    edit : callable, optional
        Given the program: changes its model, before it is prepared.
    """
    started = time.perf_counter()
    package = Package.open(source)
    output = PackageWriter(package, destination, overwrite=overwrite)
    program = Program(package)
    if edit is not None:
        edit(program)
        program = Program(package, program.model)
    prepare(program)
    weights = visible_weights(program)
    run = _Run(weights, progress)
    with ValueReader(package) as values, output:
        check_stored(weights, values)
        edits = run.edits(lambda weight: decide(program, values, weight))
        raised_from = rewrite(program, values, output, edits, num_threads, is_edited=edit is not None)
    return Report(
        source=os.fspath(source),
        destination=os.fspath(destination),
        weights=run.records,
        bytes_before=package.size,
        bytes_after=output.built_size,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=system.current.peak_memory(),
        specification_version=program.model.specificationVersion,
        raised_from=raised_from,
    )
