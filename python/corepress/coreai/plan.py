"""The dry run: what compressing an asset would do to each weight, and the size of the result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..arrays import as_threads
from ..config import ConfigLike
from ..engine.calibrated import DAMPENING
from ..engine.facade import statistics_of
from ..engine.planned import Plan
from ..engine.planning import expected_snr_db, planned
from ..engine.request import Request
from ..engine.run import ProgressCallback
from ..paths import StrPath
from ..sources import unchanged
from ..tensors import CompressedTensor
from .compressor import stored_values
from .decisions import AssetDecisions
from .format.asset import Asset
from .operations import Node, lower
from .program.program import Program
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
    from .. import coreai  # whose package is not complete while this module is imported

    started = time.perf_counter()
    threads = as_threads("plan", num_threads)
    request = Request(
        "plan",
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
        calibration=statistics_of("plan", coreai, calibration),
        calibration_use=calibration_use,
        dampening=dampening,
        num_threads=threads,
    )
    chosen = request.choose(coreai, src)
    decisions = request.decisions(AssetDecisions, chosen)
    asset = Asset.open(src)
    program = Program(asset)
    decisions.prepare(program)
    records, forms = [], dict[int, Node]()
    for number, weight in enumerate(program.weights):
        record, form, decision = planned(weight, decisions, stored_size)
        if expect_snr and decision is not None:
            lowered: Callable[[CompressedTensor], Node] = partial(lower, dtype=weight.dtype)
            snr_db = expected_snr_db(weight, decision, partial(stored_values, weight), lowered, threads)
            weight.release()
            record = dataclasses.replace(record, expected_snr_db=snr_db)
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
