"""Drives a run: open, decide per weight, rewrite, report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from math import prod

from ... import system
from ...engine.report import Report
from ...engine.run import Outcome, ProgressCallback, Run
from ...overlap import Task
from ...paths import StrPath
from ...sources import unchanged
from ..format.package import Package
from ..format.package_writer import PackageWriter
from ..format.values import ValueReader
from ..operations import OperationForm
from ..program.program import Program
from ..program.weights import Weight, check_stored, visible_weights
from .rewriter import Edit, rewrite

Result = Outcome[OperationForm]
Work = Callable[[int], Result]  # given the number of threads to use; it may run at the same time as others
Decide = Callable[[Program, ValueReader, Weight], Work]


def _memory(weight: Weight) -> int:
    """Bytes of a weight in its larger form."""
    first = weight.first
    return max(weight.stored_bytes, first.data_type.byte_count(prod(first.shape)))


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
    run = Run(weights, progress)
    with ValueReader(package) as values, output:
        check_stored(weights, values)
        edits = [
            Edit(weight, Task(work, _memory(weight)), partial(run.settle, weight))
            for weight, work in run.decided(lambda weight: decide(program, values, weight))
        ]
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
