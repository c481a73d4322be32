"""Quantize activations: 8-bit integers in place of what a program computes, with int8 weights W8A8."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ..arrays import as_threads
from ..config import Config, ConfigLike
from ..coreml.compressor import compress_as_decided, require_destination
from ..coreml.decisions import PackageDecisions
from ..coreml.format.package import Package
from ..coreml.program.program import Program
from ..coreml.program.raising_ios17 import obstacle
from ..coreml.program.weights import Weight
from ..engine.activations import ActivationRecord
from ..engine.calibrated import DAMPENING, CalibrationData, as_calibration
from ..engine.report import Report
from ..engine.run import ProgressCallback
from ..engine.selection import expected_skip
from ..extras import require
from ..runtime.opening import open_model
from ..runtime.samples import Samples
from .activation_choice import best_config, divided
from .activation_config import AUTO, activation_config, is_chosen
from .activation_observer import collect_ranges, default_function
from .activation_pairs import ActivationQuantization
from .activation_ranges import ActivationRange
from .operation_choice import choose_operations
from .statistics import Statistics

INT8_WEIGHTS = {"quantize": {"dtype": "int8"}}


def quantize_activations(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    calibration: Statistics | str | os.PathLike[str] | None = None,
    samples: Any = None,
    mode: str = "linear",
    range: str = "minmax",
    operations: Collection[str] | str | None = None,
    target_snr: float | None = None,
    config: Any = None,
    weights: ConfigLike | None = INT8_WEIGHTS,
    calibration_use: str = "error_feedback",
    dampening: float = DAMPENING,
    function_name: str | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    sample_progress: Callable[[int, int | None], None] | None = None,
    num_threads: int | None = None,
) -> Report:
    """Quantize what an ``.mlpackage`` computes to 8-bit integers, and its weights: W8A8.

    Operations get pairs of ``quantize`` and ``dequantize`` around them, with a scale for each value that comes from its
    range over all samples; Core ML's compiler makes integer operations of these on hardware that has them. The pairs
    are where ``coremltools.optimize.coreml.linear_quantize_activations`` puts them. Packages older than iOS 17 are
    raised to it. Everything else in the program is left unchanged.

    Parameters
    ----------
    src, dst : path-like
        The package to read and the package to write.
    calibration : Statistics or path-like, optional
        What `calibrate` found out: the ranges, of the samples that are not kept for choices, and second moments, with
        which the weights are stored with error feedback.
    samples : path-like, dict, or iterable of dict or of list of dict, optional
        Samples to run the model on instead, as for `calibrate`; all of them are used. Exactly one of `calibration` and
        `samples` must be given.
    mode : {"linear", "linear_symmetric", "auto"}
        "linear" uses all levels for the range of the values, with a zero point; "linear_symmetric" is symmetric around
        zero, and wastes half of its levels on values that are never negative. "auto", here or as `range`, tries all and
        keeps the one whose outputs are closest to the model's, on every fourth sample, with the ranges of the others;
        in the end ranges are those of all `samples`.
    range : {"minmax", "mse", "auto"}
        "minmax" has all values of the samples within range; "mse" cuts off the largest where that lowers the squared
        error over their histogram.
    operations : str or collection of str, optional
        Types of operations to quantize; None for conv, linear, avg_pool, max_pool and add, as in coremltools.
        conv_transpose, matmul and scaled_dot_product_attention may be added; "default" is short for the five,
        "attention" for the last two. Of these two only the inputs are quantized. "auto", alone for the five or among
        other types, measures what each operation does to the outputs, on every fourth sample with the ranges of the
        others, and leaves out those that do the most harm until `target_snr` is reached.
    target_snr : float, optional
        For "auto" operations: the signal-to-noise ratio in dB that the outputs must have, weights unchanged, all
        outputs together, each by its own power; None for 20.
    config : dict or coremltools.optimize.coreml.OptimizationConfig, optional
        Exceptions: ``{"op_types": {"add": None}, "op_names": {"conv_3": {"mode": "linear_symmetric"}}}``; None leaves
        operations alone, ``{"result": False}`` quantizes their inputs only.
    weights : config or None
        What to do to the weights, as for `compress`; int8 by default, None leaves them unchanged.
    calibration_use : {"error_feedback", "diagonal", "fisher"}
        What `calibration` is used for in the weights, as for `compress`.
    dampening : float
        For error feedback, as for `compress`.
    function_name : str, optional
        The function to quantize, for a model with several; None for its default.
    overwrite : bool
        Replace `dst` if it exists.
    progress : callable, optional
        Called with a `Progress` after each weight.
    sample_progress : callable, optional
        Called with the number of samples that were run, and of all, None where that is not known.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Report
        One record per weight, and in `Report.activations` one per operation, with the reason where it was left alone.

    Raises
    ------
    ValueError
        If the samples or the statistics do not fit the model, an option has no such value, no operation can be
        quantized, the target cannot be reached, or the program cannot be raised to iOS 17.
    FormatError
        If the package or the file of statistics is damaged.
    UnsupportedOperationError
        If the model has an operation that cannot be run here.
    MissingExtraError
        If PyTorch is not installed and `samples` are given.

    Notes
    -----
    The same ranges give the same bytes everywhere. The ranges themselves depend on the floating-point arithmetic of
    what ran the model, float32 here.
    """
    as_threads("quantize_activations", num_threads)
    if (calibration is None) == (samples is None):
        raise ValueError("quantize_activations: give either calibration or samples")
    is_open, leaves_out = AUTO in (mode, range), is_chosen(operations)
    if target_snr is not None and not leaves_out:
        raise ValueError('quantize_activations: target_snr is for operations="auto"')
    if target_snr is not None and not math.isfinite(target_snr):
        raise ValueError(f"quantize_activations: target_snr is {target_snr}, but must be a finite number of dB")
    chosen = activation_config(
        config,
        mode="linear" if mode == AUTO else mode,
        range="minmax" if range == AUTO else range,
        operations=operations,
    )
    statistics = None if calibration is None else as_calibration("quantize_activations", calibration, Statistics)
    decisions = None
    if weights is not None:
        known = None if statistics is None else CalibrationData(statistics, calibration_use, dampening)
        decisions = PackageDecisions.of(weights, False, None, None, None, None, None, known)
    program = Program(Package.open(src))
    name = _require_possible(program, function_name, src)
    require_destination(src, dst, overwrite=overwrite)
    kept: Sequence[Any] = ()
    if statistics is not None:
        ranges, kept = ranges_of(statistics, program, name), statistics.kept
    else:
        if is_open or leaves_out:
            with open_model(src) as opened:
                description = opened.root.describe(opened.root.function(function_name))
            samples, kept = divided(Samples("quantize_activations", samples, description))
        ranges = collect_ranges(
            src, samples, function_name=function_name, num_threads=num_threads, progress=sample_progress
        )
    notes: tuple[str, ...] = ()
    alone: Mapping[str, float] = {}
    if is_open or leaves_out:
        if not kept:
            raise ValueError(
                'quantize_activations: "auto" needs samples that calibration kept for choices, but it kept none; '
                "calibrate with at least 4"
            )
        require("quantize_activations", "torch")
    if is_open:
        chosen, note = best_config(src, name, ranges, chosen, mode, range, kept, num_threads)
        notes = (note,)
    if leaves_out:
        found = choose_operations(src, name, ranges, chosen, kept, target_snr, num_threads)
        chosen, alone, notes = found.config, found.snr_db, (*notes, found.note)
    if statistics is None and kept and kept is not samples:  # they have done their part
        ranges = _joined(ranges, collect_ranges(src, kept, function_name=function_name, num_threads=num_threads))
    report = write_quantized(
        src,
        dst,
        ActivationQuantization(name, ranges, chosen),
        decisions,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
    )
    records = (_with_ratio(record, alone.get(record.name)) for record in report.activations)
    return dataclasses.replace(report, activations=tuple(records), notes=(*notes, *report.notes))


def _joined(ranges: Mapping[str, ActivationRange], others: Mapping[str, ActivationRange]) -> dict[str, ActivationRange]:
    """The ranges of two parts of the samples together."""
    return {**ranges, **others} | {key: ranges[key].merged(others[key]) for key in ranges.keys() & others.keys()}


def _with_ratio(record: ActivationRecord, ratio: float | None) -> ActivationRecord:
    if ratio is None or not math.isfinite(ratio):
        return record
    return dataclasses.replace(record, snr_db=ratio)


def write_quantized(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    quantization: ActivationQuantization,
    decisions: PackageDecisions | None = None,
    *,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
    num_threads: int | None = None,
) -> Report:
    """Write a package with quantized activations, its weights stored as decided; None leaves them unchanged."""
    report = compress_as_decided(
        src,
        dst,
        _NoDecisions() if decisions is None else decisions,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
        edit=quantization.edit,
    )
    return dataclasses.replace(
        report,
        activations=quantization.records,
        raised_from=quantization.raised_from if report.raised_from is None else report.raised_from,
        notes=(*report.notes, *quantization.notes),
    )


class _NoDecisions(PackageDecisions):
    """Leaves all weights unchanged."""

    def __init__(self) -> None:
        super().__init__(Config(global_config=None), strict=False)

    def prepare(self, program: Program) -> None:
        """Nothing to check."""

    def decide(self, weight: Weight) -> Any:
        """No weight is changed."""
        raise expected_skip("weights are left unchanged")


def ranges_of(statistics: Statistics, program: Program, function_name: str) -> dict[str, ActivationRange]:
    """The ranges in statistics, which must be those of a program.

    Raises
    ------
    ValueError
        If they are of another model or function, or have no ranges.
    FormatError
        If they are damaged.
    """
    statistics.require_model(program)
    if not statistics.ranges:
        raise ValueError("quantize_activations: the statistics have no ranges of activations; calibrate again")
    if statistics.function_name not in (None, function_name):
        raise ValueError(
            f"quantize_activations: the statistics are of function {statistics.function_name!r}, not {function_name!r}"
        )
    return {
        name: ActivationRange.from_arrays(arrays, f"the range of {name}") for name, arrays in statistics.ranges.items()
    }


def _require_possible(program: Program, function_name: str | None, src: Any) -> str:
    """Refuse, before work begins, what cannot be quantized; return the name of the function."""
    part = program.parts[0]
    if part.prefix:
        raise ValueError(
            f"quantize_activations: {os.fspath(src)} is a pipeline, whose models are quantized one by one; save each "
            "as a package"
        )
    if (reason := obstacle(part)) is not None:
        raise ValueError(f"quantize_activations: {reason}")
    with open_model(src) as opened:
        name = default_function(program, opened.root.function(function_name))
    if name not in program.model.mlProgram.functions:
        known = ", ".join(sorted(program.model.mlProgram.functions))
        raise ValueError(f"quantize_activations: there is no function {name!r}; the model has {known}")
    return name
