"""The dry run: what compressing an asset would do to each weight, and the size of the result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import as_threads
from ..compression.weight_data import NO_DATA
from ..config import ConfigLike
from ..engine.calibrated import DAMPENING, CalibrationData
from ..engine.choice import choose
from ..engine.decisions import Decision
from ..engine.planned import Plan, PlannedWeight
from ..engine.records import identity
from ..engine.run import ProgressCallback
from ..engine.sampling import sample_rows
from ..engine.steps import compress_stored
from ..errors import NonFiniteError, Skip
from ..paths import StrPath
from ..sources import unchanged
from ..specs import Palettize
from .compressor import allocator, statistics_of, stored_values
from .decisions import AssetDecisions
from .format.asset import Asset
from .operations import Node, lower
from .program.program import Program
from .program.weights import Weight
from .program.written_size import written_size
from .sizes import stored_size

if TYPE_CHECKING:
    from . import Statistics


@unchanged("src")
def plan(
    src: StrPath,
    config: ConfigLike | None = None,
    *,
    target_size: int | str | None = None,
    target_bits: float | None = None,
    target_snr: float | None = None,
    candidates: Any = None,
    progress: ProgressCallback | None = None,
    strict: bool = False,
    weight_threshold: int | None = None,
    target: str | None = None,
    joint_compression: bool | None = None,
    keep_position_tables: bool | None = None,
    importance: Mapping[str, Any] | None = None,
    calibration: Statistics | StrPath | None = None,
    calibration_use: str = "error_feedback",
    dampening: float = DAMPENING,
    expect_snr: bool = False,
    num_threads: int | None = None,
) -> Plan:
    """Return what `compress` would do with the same arguments, without writing anything.

    Parameters
    ----------
    src : path-like
        The asset.
    config, target_size, target_bits, target_snr, candidates, progress, strict, weight_threshold, target, \
    joint_compression, keep_position_tables, importance, calibration, calibration_use, dampening
        As for `compress`.
    expect_snr : bool
        Compress some rows of each weight, to estimate the signal-to-noise ratio.
    num_threads : int, optional
        Threads to use for that; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Plan
        One record per weight, and totals: the bytes of all files.

    Raises
    ------
    ValueError, FormatError
        As `compress` would before work starts.

    Notes
    -----
    Only the program is read, not the weights, unless with `expect_snr` or a target. Sizes that depend on the values
    (pruning, palettes of quantized weights, ``mode="unique"`` or ``"custom"``) are estimates and marked so.
    """
    started = time.perf_counter()
    statistics = statistics_of("plan", calibration)
    chosen = choose(
        "plan",
        allocator(),
        src,
        config,
        {"target_size": target_size, "target_bits": target_bits, "target_snr": target_snr},
        candidates=candidates,
        target=target,
        weight_threshold=weight_threshold,
        joint_compression=joint_compression,
        keep_position_tables=keep_position_tables,
        strict=strict,
        progress=progress,
        num_threads=num_threads,
        calibration=statistics,
    )
    decisions = AssetDecisions.of(
        chosen.config,
        strict,
        weight_threshold,
        target,
        joint_compression,
        keep_position_tables,
        importance,
        None if statistics is None else CalibrationData(statistics, calibration_use, dampening),
    )
    asset = Asset.open(src)
    program = Program(asset)
    decisions.prepare(program)
    threads = as_threads("plan", num_threads)
    records, forms = [], dict[int, Node]()
    for number, weight in enumerate(program.weights):
        record, form, decision = _planned(weight, decisions)
        if expect_snr and decision is not None:
            record = dataclasses.replace(record, expected_snr_db=_expected_snr_db(weight, decision, threads))
        records.append(record)
        if form is not None:
            forms[number] = form
    return Plan(
        source=os.fspath(src),
        weights=tuple(records),
        bytes_before=asset.size,
        bytes_after=written_size(asset, program, forms),
        exact=all(record.exact for record in records),
        specification_version=None,
        raised_from=None,
        notes=(*chosen.notes, *decisions.notes),
        unmatched_rules=decisions.unmatched_rules,
        warnings=decisions.warnings(record.name for record in records if record.status == "compress"),
        seconds=time.perf_counter() - started,
        predicted=chosen.predicted,
    )


def _expected_snr_db(weight: Weight, decision: Decision, threads: int) -> float | None:
    """The loss in some rows of a weight; None if it is already compressed, or if the loss cannot be estimated."""
    custom = any(isinstance(step, Palettize) and step.mode == "custom" for step in decision.steps)
    if weight.is_compressed or custom:
        return None
    # Error feedback is between all columns of a row: the loss in a weight is then that of its nearest values, or more.
    known = decision.data if decision.data.importance is not None else NO_DATA
    data = known.mapped(lambda array: sample_rows(array, decision.steps))
    try:
        stored = stored_values(weight)
        rows = sample_rows(stored, decision.steps) if isinstance(stored, np.ndarray) else None
        lowered = partial(lower, dtype=weight.dtype)
        return None if rows is None else compress_stored(rows, decision.steps, lowered, threads, data)[1]
    except (Skip, NonFiniteError):
        return None
    finally:
        weight.release()


def _planned(weight: Weight, decisions: AssetDecisions) -> tuple[PlannedWeight, Node | None, Decision | None]:
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
    after = size if form is None else form.nbytes
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
