"""Compressing the weights of an asset."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import system
from ..arrays import as_threads
from ..config import ConfigLike
from ..engine.calibrated import DAMPENING
from ..engine.facade import statistics_of
from ..engine.report import Report, WeightRecord
from ..engine.request import Choice, Made, Request
from ..engine.run import Outcome, ProgressCallback, Run
from ..engine.steps import compressed_outcome
from ..errors import Skip
from ..overlap import RunAhead, Task
from ..paths import StrPath
from ..sources import unchanged
from ..tensors import CompressedTensor
from .decisions import AssetDecisions
from .format.asset import Asset
from .format.asset_writer import AssetWriter
from .operations import Node, UnsupportedForm, lower
from .program.program import Program
from .program.weights import Weight

if TYPE_CHECKING:
    from . import Statistics

Work = Callable[[int], Outcome[Node]]  # given the number of threads to use; it may run at the same time as others


def compress(
    src: StrPath,
    dst: StrPath,
    config: ConfigLike | None = None,
    *,
    target_size: int | str | None = None,
    target_bits: float | None = None,
    target_snr: float | None = None,
    candidates: Any = None,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    strict: bool = False,
    weight_threshold: int | None = None,
    target: str | None = None,
    joint_compression: bool | None = None,
    keep_position_tables: bool | None = None,
    importance: Mapping[str, Any] | None = None,
    calibration: Statistics | StrPath | None = None,
    calibration_use: str = "error_feedback",
    dampening: float = DAMPENING,
    num_threads: int | None = None,
) -> Report:
    """Compress the weights of an ``.aimodel``.

    Weights are read from the mapped file one after another, small ones in parallel, and replaced in the program, which
    is written once. A weight that several operations or functions share is compressed once. The new asset appears under
    its name only when it is complete. A weight that cannot be compressed as requested, or that would not become
    smaller, is left unchanged, bit for bit, and listed in the report with the reason, as is what operations use that
    are not known.

    Parameters
    ----------
    src, dst : path-like
        The asset to read and the asset to write.
    config, target_size, target_bits, target_snr, candidates, progress, overwrite, strict, weight_threshold, target, \
    joint_compression, keep_position_tables, importance, calibration, calibration_use, dampening, num_threads
        As for `corepress.coreml.compress`. Operations have Core AI's names, without a prefix: ``conv2d``,
        ``gather_nd``, ``broadcasting_batch_matmul``.

    Returns
    -------
    Report
        One record per weight, and totals.

    Raises
    ------
    ValueError
        If the config is invalid, or has no form in Core AI, or with `strict`; if a target cannot be reached; if there
        is neither a config nor a target; for `importance` and `calibration` as for `corepress.coreml.compress`.
    FormatError
        If the asset, or the file of the statistics, is damaged.
    MissingExtraError
        If coreai-core is not installed.
    """
    from .. import coreai  # whose package is not complete while this module is imported

    request = Request(
        "compress",
        config=config,
        target_size=target_size,
        target_bits=target_bits,
        target_snr=target_snr,
        candidates=candidates,
        progress=progress,
        strict=strict,
        weight_threshold=weight_threshold,
        target=target,
        joint_compression=joint_compression,
        keep_position_tables=keep_position_tables,
        importance=importance,
        calibration=statistics_of("compress", coreai, calibration),
        calibration_use=calibration_use,
        dampening=dampening,
        num_threads=as_threads("compress", num_threads),
    )
    if request.has_target:
        require_destination(src, dst, overwrite=overwrite)
    return compress_as_chosen(src, dst, request, request.choose(coreai, src), overwrite=overwrite)


def compress_as_chosen(src: StrPath, dst: StrPath, request: Request, chosen: Choice, *, overwrite: bool) -> Report:
    """Like `compress`, with what was chosen for this asset and this calibration; what was made is not made again."""
    decisions = request.decisions(AssetDecisions, chosen)
    report = transform(
        src,
        dst,
        partial(work_of, decisions, request.reusable(chosen)),
        prepare=decisions.prepare,
        progress=request.progress,
        overwrite=overwrite,
        num_threads=request.num_threads,
    )
    compressed = [record.name for record in report.weights if record.status == "compressed"]
    return dataclasses.replace(
        report,
        notes=(*chosen.notes, *decisions.notes),
        unmatched_rules=decisions.unmatched_rules,
        warnings=decisions.warnings(compressed),
        predicted=chosen.predicted,
    )


def require_destination(src: StrPath, dst: StrPath, *, overwrite: bool) -> None:
    """Raise, before anything is read, the error for a destination that cannot be written."""
    AssetWriter(Asset.open(src), dst, overwrite=overwrite)


def work_of(
    decisions: AssetDecisions, made: Mapping[tuple[str, str], Made], weight: Weight, *, is_measured: bool = True
) -> Work:
    """What a config does to a weight; raises `Skip` if it is left unchanged."""
    decision = decisions.decide(weight)

    def work(threads: int) -> Outcome[Node]:
        known = made.get((weight.function, weight.name), ((), None))
        stored = partial(stored_values, weight)
        lowered: Callable[[CompressedTensor], Node] = partial(lower, dtype=weight.dtype)
        try:
            return compressed_outcome(
                weight, decision, decisions, known, stored, lowered, threads, is_measured=is_measured
            )
        finally:
            weight.release()

    return work


def stored_values(weight: Weight) -> NDArray[Any] | CompressedTensor:
    """The values of a weight, or the tensor that it is stored as; raises `Skip` for forms that are not known."""
    try:
        found = weight.read()
    except UnsupportedForm as form:
        raise Skip(f"{form} is not supported by this version") from None
    if weight.is_compressed and isinstance(found, np.ndarray):
        raise Skip(f"{weight.storage} cannot be compressed further")
    return found


@unchanged("source", at_end=False)
def transform(
    source: StrPath,
    destination: StrPath,
    decide: Callable[[Weight], Work],
    *,
    prepare: Callable[[Program], None],
    progress: ProgressCallback | None,
    overwrite: bool,
    num_threads: int | None,
) -> Report:
    """Write a copy of an asset in which some weights are stored in another form.

    Parameters
    ----------
    source, destination : path-like
        The assets.
    decide : callable
        Given a weight: returns a function that makes the new form when its turn comes, on any thread. Both may raise
        `Skip`.
    prepare : callable
        Given the program: raises if the run cannot succeed.
    progress : callable or None
        Called at the start and after each weight.
    overwrite : bool
        Replace an existing destination.
    num_threads : int or None
        Threads that the weights share; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    """
    started = time.perf_counter()
    asset = Asset.open(source)
    output = AssetWriter(asset, destination, overwrite=overwrite)
    program = Program(asset)
    prepare(program)
    with output:
        records = edit(program, decide, progress=progress, num_threads=num_threads)
        program.save(output)
        output.finish()
    return Report(
        source=os.fspath(source),
        destination=os.fspath(destination),
        weights=records,
        bytes_before=asset.size,
        bytes_after=output.built_size,
        seconds=time.perf_counter() - started,
        peak_memory_bytes=system.current.peak_memory(),
    )


def edit(
    program: Program,
    decide: Callable[[Weight], Work],
    *,
    progress: ProgressCallback | None = None,
    num_threads: int | None = None,
) -> tuple[WeightRecord, ...]:
    """Store weights of a program in other forms; `decide`, `progress` and `num_threads` as for `transform`."""
    run = Run(program.weights, progress)
    decided = run.decided(decide)
    with RunAhead([Task(work, memory_of(weight)) for weight, work in decided], num_threads) as ahead:
        for (weight, _), result in zip(decided, ahead.results(), strict=True):
            form = run.settle(weight, result)
            if form is not None:
                weight.store(form)
    return run.records


def memory_of(weight: Weight) -> int:
    """Bytes of a weight in its larger form."""
    return max(weight.stored_bytes, weight.dense_bytes)
