"""Compressing the weights of a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..arrays import as_threads
from ..config import ConfigLike
from ..engine.calibrated import DAMPENING
from ..engine.facade import statistics_of
from ..engine.report import Report
from ..engine.request import Choice, Made, Request
from ..engine.run import Outcome, ProgressCallback
from ..engine.steps import compressed_outcome
from ..paths import StrPath
from ..tensors import CompressedTensor
from .decisions import PackageDecisions
from .decompressor import lift_definition
from .format.package import Package
from .format.package_writer import PackageWriter
from .format.values import ValueReader
from .operations import OperationForm, lower_to
from .program.program import Program
from .program.weights import Weight
from .rewrite.driver import Work, transform

if TYPE_CHECKING:
    from . import Statistics


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
    """Compress the weights of an ``.mlpackage``.

    Weights are compressed one after another, small ones in parallel, while earlier ones are written to the new package;
    everything else is copied unchanged. A weight that would not become smaller is left unchanged. The destination
    appears only when it is complete, and the source is never written to.

    Parameters
    ----------
    src, dst : path-like
        The package to read and the package to write.
    config : Config, dict, list, spec, path or coremltools.optimize.coreml.OptimizationConfig
        What to do: ``{"palettize": {"nbits": 4}}`` for all weights, a list of steps in order, or a `corepress.Config`
        with rules by operation type and weight name, as an object, a dict, or the path of a YAML or JSON file; or what
        `allocate` returned. Optional with a target: its rules are for the weights that they match, and the steps of all
        others are chosen.
    target_size, target_bits, target_snr, candidates : optional
        Choose the steps for each weight as `allocate` does, for bytes of the package, bits per weight or a
        signal-to-noise ratio. At most one target.
    progress : callable, optional
        Called with a `Progress` at the start and after each weight.
    overwrite : bool
        Replace `dst` if it exists.
    strict : bool
        Raise if a weight cannot be compressed as requested, instead of leaving it unchanged and listing it in the
        report, or if a rule of the config matches no weight.
    weight_threshold : int, optional
        Weights of this many elements or fewer are left unchanged, whatever the config says; None for the config's
        thresholds, 2048 if it has none.
    target : {"ios16", "ios17", "ios18", "ios26", "ane", "gpu"}, optional
        Warn in the report of encodings known to be refused or slow on this target; None for the config's target.
    joint_compression : bool, optional
        Whether already compressed weights are compressed further instead of left unchanged; None for the config's
        choice.
    keep_position_tables : bool, optional
        Whether rotary tables and other position tables are left unchanged; None for the config's choice.
    importance : mapping of str to array_like, optional
        How much the squared error of each element of a weight counts, by the weight's name in the report or any other
        of its names; as for `palettize` and `quantize`, whose steps use it. Weights without an entry, or with None,
        have equal importance.
    calibration : Statistics or path-like, optional
        What `calibrate` found out about this model. Weights that it has nothing of are compressed without, and listed
        in the report; those with an entry in `importance` too.
    calibration_use : {"error_feedback", "diagonal", "fisher"}
        What calibration is used for. With error feedback the weights of a row that are still to be stored make up for
        the errors of those that are (GPTQ, SparseGPT), which keeps the outputs of each layer close. "diagonal" and
        "fisher" only weigh squared errors, by the mean square of what an element is multiplied with and of its
        gradient: k-means of that importance (SqueezeLLM's) was between 1.5 dB worse and 4 dB better than none where it
        was measured, error feedback 6 to 18 dB better at 4 bits. "fisher" needs ``calibrate(importance=True)``.
    dampening : float
        For error feedback: this share of the mean diagonal of the second moments is added to their diagonal. 0.1 where
        there are few samples.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`. The result does not
        depend on it.

    Returns
    -------
    Report
        One record per weight, and totals.

    Raises
    ------
    ValueError
        If the config is invalid, or the package's specification version cannot express it, or with `strict`; if a
        target cannot be reached; if there is neither a config nor a target; if
        `importance` has a name that no weight has, does not fit its weight, or the weight's first step has no use for
        it; if the statistics are those of another model, whose weights are named.
    FormatError
        If the package, or the file of the statistics, is damaged.
    """
    from .. import coreml  # whose package is not complete while this module is imported

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
        calibration=statistics_of("compress", coreml, calibration),
        calibration_use=calibration_use,
        dampening=dampening,
        num_threads=as_threads("compress", num_threads),
    )
    if request.has_target:
        require_destination(src, dst, overwrite=overwrite)
    return compress_as_chosen(src, dst, request, request.choose(coreml, src), overwrite=overwrite)


def compress_as_chosen(src: StrPath, dst: StrPath, request: Request, chosen: Choice, *, overwrite: bool) -> Report:
    """Like `compress`, with what was chosen for this package and this calibration; what was made is not made again."""
    report = compress_as_decided(
        src,
        dst,
        request.decisions(PackageDecisions, chosen),
        progress=request.progress,
        overwrite=overwrite,
        num_threads=request.num_threads,
        made=request.reusable(chosen),
    )
    return dataclasses.replace(report, predicted=chosen.predicted, notes=(*chosen.notes, *report.notes))


def require_destination(src: StrPath, dst: StrPath, *, overwrite: bool) -> None:
    """Raise, before anything is read, the error for a destination that cannot be written."""
    PackageWriter(Package.open(src), dst, overwrite=overwrite)


def compress_as_decided(
    src: StrPath,
    dst: StrPath,
    decisions: PackageDecisions,
    *,
    progress: ProgressCallback | None,
    overwrite: bool,
    num_threads: int | None,
    edit: Callable[[Program], None] | None = None,
    made: Mapping[tuple[str, str], Made] | None = None,
) -> Report:
    """Like `compress`, with any `PackageDecisions` instead of a config.

    `edit` changes the program's model before; `made` has weights that were made already, by function and name.
    """

    def decide(program: Program, values: ValueReader, weight: Weight) -> Work:
        decision = decisions.decide(weight)

        def work(threads: int) -> Outcome[OperationForm]:
            known = (made or {}).get((weight.function, weight.name), ((), None))
            stored, lowered = partial(stored_values, weight, values), lower_to(weight.first.version)
            return compressed_outcome(weight, decision, decisions, known, stored, lowered, threads)

        return work

    report = transform(
        src,
        dst,
        decide,
        prepare=decisions.prepare,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
        edit=edit,
    )
    compressed = [record.name for record in report.weights if record.status == "compressed"]
    return dataclasses.replace(
        report,
        notes=decisions.notes,
        unmatched_rules=decisions.unmatched_rules,
        warnings=decisions.warnings(compressed),
    )


def stored_values(weight: Weight, values: ValueReader) -> NDArray[Any] | CompressedTensor:
    """The values of a weight, or the tensor that it is stored as."""
    first = weight.first
    if weight.is_compressed:
        return lift_definition(first, values)
    return values.read(first.parameters["val"], first.where).data
