"""Compressing the weights of a package."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import compression
from ..arrays import as_threads
from ..compression.metrics import error
from ..compression.weight_data import NO_DATA, WeightData
from ..config import Config, ConfigLike, as_config
from ..errors import NonFiniteError, Skip, UnsuitableWeightError
from ..specs import Palettize, Spec
from ..suggestions import suggestion
from ..tensors import CompressedTensor
from ..tensors.base import decoded_pieces
from .calibrated import DAMPENING, WAYS, CalibrationData, as_calibration
from .decoded import distance
from .decompressor import lift_definition
from .format.package import Package
from .format.package_writer import PackageWriter
from .format.values import ValueReader
from .format.weight_file import release_array
from .operations import OperationForm, check_steps, lower
from .program.program import Part, Program, Weight
from .program.raising import obstacle
from .program.storage import is_compressed, stored_bytes, visible_weights
from .reports.prediction import Prediction
from .reports.report import Report
from .reports.targets import Encoding, TargetLint, TargetWarning
from .resolution import resolve
from .rewrite.driver import Outcome, ProgressCallback, StrPath, Work, transform
from .selection import bind_rules, select

if TYPE_CHECKING:
    from . import Statistics

UNCALIBRATED = (
    "the config's steps were chosen with calibration, but are applied without: errors are larger than was predicted; "
    "pass the same calibration"
)


@dataclass(frozen=True)
class Decision:
    """What to do to a weight.

    Attributes
    ----------
    steps : tuple of Spec
        The steps, with the weight's axes and groups filled in.
    description : str
        How its record describes them.
    data : WeightData
        What is known of the weight besides its values: importance is for the first step, a hessian for all steps.
    """

    steps: tuple[Spec, ...]
    description: str
    data: WeightData = NO_DATA


Made: TypeAlias = tuple[tuple[Spec, ...], CompressedTensor]
"""Steps, and the weight after these."""


class Decisions:
    """What a config does to each weight of a program, decided before work starts.

    Parameters
    ----------
    config : Config
        The config.
    strict : bool
        Raise if a weight that the config matches cannot be compressed, and for rules that match no weight.
    importance : mapping of str to array_like, optional
        How much the squared error of each element counts, by names of weights.
    calibration : CalibrationData, optional
        What is known of the weights that `importance` has no entry for.
    """

    def __init__(
        self,
        config: Config,
        *,
        strict: bool,
        importance: Mapping[str, Any] | None = None,
        calibration: CalibrationData | None = None,
    ) -> None:
        if importance is not None and not isinstance(importance, Mapping):
            raise TypeError(
                f"compress: importance must be a dict of arrays by weight name, not {type(importance).__name__}"
            )
        self._config, self._strict, self._importance = config, strict, importance or {}
        self._calibration = calibration
        self._lint = TargetLint(config.target)
        self._obstacles: dict[str, str | None] = {}
        self._notes: tuple[str, ...] = ()
        self.unmatched_rules: tuple[str, ...] = ()

    def prepare(self, program: Program) -> None:
        """Check the program as a whole; raises if the run cannot succeed."""
        if not (self._config.op_types or self._config.weights):
            part = min(program.parts, key=lambda part: part.version)
            check_steps(self._config.global_config.steps, part.version, part.model.specificationVersion)
        self._config, self._notes, self.unmatched_rules = bind_rules(self._config, program)
        if self._calibration is not None:
            self._calibration.prepare(program)
        elif self._config.calibrated:
            self._notes += (UNCALIBRATED,)
        if self._strict and self.unmatched_rules:
            raise ValueError(f"config: no weight matches {'; '.join(self.unmatched_rules)}")
        self._lint.check_version(program.specification_version)
        known = {name for weight in visible_weights(program) for name in weight.names} if self._importance else ()
        for name in self._importance:
            if name not in known:
                raise ValueError(f"compress: importance of {name!r}: no weight has this name{suggestion(name, known)}")

    @property
    def notes(self) -> tuple[str, ...]:
        """Rules that were not read literally, and weights that calibration has nothing of."""
        return self._notes if self._calibration is None else (*self._notes, *self._calibration.notes)

    def decide(self, weight: Weight) -> Decision:
        """The decision for a weight; raises `Skip` if it is left unchanged."""
        first = weight.first
        try:
            chosen = select(self._config, weight).steps
            self._require_raisable(first.part)
            check_steps(chosen, first.version, first.part.model.specificationVersion)
            steps = tuple(self.resolve(step, weight) for step in chosen)
        except Skip as reason:
            raise self.kept(weight, reason) from None
        axes = {axis for axis in weight.axes if axis is not None}
        encoding = Encoding(steps, len(first.shape), axes.pop() if len(axes) == 1 else None)
        self._lint.check(first.name, encoding)
        # Groups may have become others than asked for; blocks are described as they were asked for.
        parts = [
            step.description if isinstance(step, Palettize) else asked.description
            for step, asked in zip(steps, chosen, strict=True)
        ]
        return Decision(steps, ", then ".join(parts), self._data_of(weight, steps))

    def _data_of(self, weight: Weight, steps: tuple[Spec, ...]) -> WeightData:
        """What is known of a weight, checked before work starts."""
        names, step = [name for name in weight.names if name in self._importance], steps[0]
        if not names:
            return NO_DATA if self._calibration is None else self._calibration.data_of(weight, steps)
        if len(names) > 1:
            raise ValueError(f"compress: importance of {' and '.join(names)}: these are one weight; give one of them")
        data, (name,) = WeightData(self._importance[names[0]]), names
        data.check("compress", name, weight.first.shape)
        try:
            data.require_use(step)
            if is_compressed(weight):
                data.require_plain(step.verb)
        except ValueError as failure:
            raise ValueError(f"compress: importance of {name}: {failure}") from None
        return data

    def _require_raisable(self, part: Part) -> None:
        """Refuse compressed weights in a model that is too old for them and cannot be raised."""
        if part.prefix not in self._obstacles:
            self._obstacles[part.prefix] = obstacle(part)
        if (reason := self._obstacles[part.prefix]) is not None:
            raise ValueError(f"config: {reason}")

    def resolve(self, step: Spec, weight: Weight) -> Spec:
        """A step with the weight's axes and groups filled in; raises `Skip` if it does not apply to this weight."""
        return resolve(step, weight)

    def require_smaller(self, weight: Weight, nbytes: int) -> None:
        """Raise `Skip` for a form that takes no fewer bytes than the weight takes now."""
        if nbytes >= stored_bytes(weight):
            raise Skip("would not become smaller, with its scales or table", expected=True)

    def kept(self, weight: Weight, reason: Skip) -> Exception:
        """With `strict`, leaving a weight unchanged that the config selects is an error."""
        if reason.expected or not self._strict:
            return reason
        return ValueError(f"{weight.first.name} (shape {weight.first.shape}): {reason}")

    def warnings(self, compressed: Iterable[str]) -> tuple[TargetWarning, ...]:
        """Known problems of these encodings on the config's target."""
        return self._lint.warnings(compressed)


def decisions_of(
    config: ConfigLike,
    strict: bool,
    weight_threshold: int | None,
    target: str | None,
    joint_compression: bool | None,
    keep_position_tables: bool | None,
    importance: Mapping[str, Any] | None = None,
    calibration: CalibrationData | None = None,
) -> Decisions:
    """The decisions for a call of `compress` or `plan`."""
    given = as_config(
        config,
        weight_threshold=weight_threshold,
        target=target,
        joint_compression=joint_compression,
        keep_position_tables=keep_position_tables,
    )
    return Decisions(given, strict=strict, importance=importance, calibration=calibration)


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
    num_threads = as_threads("compress", num_threads)
    statistics = as_calibration("compress", calibration)
    targets = {"target_size": target_size, "target_bits": target_bits, "target_snr": target_snr}
    if any(each is not None for each in targets.values()):
        require_destination(src, dst, overwrite=overwrite)
    chosen = choose(
        "compress",
        src,
        config,
        targets,
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
    return compress_as_chosen(
        src,
        dst,
        chosen,
        progress=progress,
        overwrite=overwrite,
        strict=strict,
        weight_threshold=weight_threshold,
        target=target,
        joint_compression=joint_compression,
        keep_position_tables=keep_position_tables,
        importance=importance,
        calibration=statistics,
        calibration_use=calibration_use,
        dampening=dampening,
        num_threads=num_threads,
    )


def compress_as_chosen(
    src: StrPath,
    dst: StrPath,
    chosen: Choice,
    *,
    progress: ProgressCallback | None = None,
    overwrite: bool = False,
    strict: bool = False,
    weight_threshold: int | None = None,
    target: str | None = None,
    joint_compression: bool | None = None,
    keep_position_tables: bool | None = None,
    importance: Mapping[str, Any] | None = None,
    calibration: Any = None,
    calibration_use: str = "error_feedback",
    dampening: float = DAMPENING,
    num_threads: int | None = None,
) -> Report:
    """Like `compress`, with what was chosen for this package and this calibration; what was made is not made again."""
    decisions = decisions_of(
        chosen.config,
        strict,
        weight_threshold,
        target,
        joint_compression,
        keep_position_tables,
        importance,
        None if calibration is None else CalibrationData(calibration, calibration_use, dampening),
    )
    report = compress_as_decided(
        src,
        dst,
        decisions,
        progress=progress,
        overwrite=overwrite,
        num_threads=num_threads,
        made=chosen.made if (calibration_use, dampening) == (WAYS[0], DAMPENING) and not importance else {},
    )
    return dataclasses.replace(report, predicted=chosen.predicted, notes=(*chosen.notes, *report.notes))


def require_destination(src: StrPath, dst: StrPath, *, overwrite: bool) -> None:
    """Raise, before anything is read, the error for a destination that cannot be written."""
    PackageWriter(Package.open(src), dst, overwrite=overwrite)


@dataclass(frozen=True)
class Choice:
    """The config of a call, and what is expected of it if it was chosen for a target."""

    config: ConfigLike
    predicted: Prediction | None = None
    notes: tuple[str, ...] = ()
    made: Mapping[tuple[str, str], Made] = field(default_factory=dict)


def choose(
    function: str,
    src: StrPath,
    config: ConfigLike | None,
    targets: Mapping[str, Any],
    *,
    candidates: Any,
    **options: Any,
) -> Choice:
    """The config of a call: the one that is given, or for a target the one that `allocate` finds.

    Parameters
    ----------
    function : str
        The caller, for messages.
    src : path-like
        The package.
    config : Config or what becomes one, or None
        What was given.
    targets : dict of str to object
        The targets, None for those that were not given.
    candidates : str, list or None
        As for `allocate`.
    **options
        Others of `allocate`.

    Raises
    ------
    ValueError
        If there is neither a config nor a target, or candidates without a target.
    """
    if all(each is None for each in targets.values()):
        if config is None:
            raise ValueError(f"{function}: give a config, or one of {', '.join(targets)}")
        if candidates is not None:
            raise ValueError(f"{function}: candidates are for a target; give one of {', '.join(targets)}")
        predicted = getattr(config, "predicted", None)  # of an allocation
        if isinstance(predicted, Prediction):
            return Choice(config, predicted, tuple(getattr(config, "notes", ())))
        return Choice(config)
    from . import allocate  # what this package offers of those above it

    found = allocate(src, **targets, config=config, candidates=candidates, **options)
    return Choice(found.config, found.predicted, found.notes, found.made)


def compress_as_decided(
    src: StrPath,
    dst: StrPath,
    decisions: Decisions,
    *,
    progress: ProgressCallback | None,
    overwrite: bool,
    num_threads: int | None,
    edit: Callable[[Program], None] | None = None,
    made: Mapping[tuple[str, str], Made] | None = None,
) -> Report:
    """Like `compress`, with any `Decisions` instead of a config.

    `edit` changes the program's model before; `made` has weights that were made already, by function and name.
    """

    def decide(program: Program, values: ValueReader, weight: Weight) -> Work:
        decision, first = decisions.decide(weight), weight.first

        def work(threads: int) -> Outcome:
            try:
                stored = stored_values(weight, values)
                steps, tensor = (made or {}).get((first.function, first.name), ((), None))
                if tensor is not None and steps == decision.steps:
                    form, snr_db = lower(tensor, first.version), error(stored, tensor, num_threads=threads).snr_db
                else:
                    form, snr_db = compress_stored(stored, decision.steps, first.version, threads, decision.data)
                    if isinstance(decision.data.hessian, np.ndarray):
                        release_array(decision.data.hessian)
                decisions.require_smaller(weight, form.nbytes)
            except Skip as reason:
                raise decisions.kept(weight, reason) from None
            except NonFiniteError as failure:
                raise ValueError(f"{first.name}: {failure}") from failure
            return Outcome(form, "compressed", decision.description, snr_db)

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
    if is_compressed(weight):
        return lift_definition(first, values)
    return values.read(first.parameters["val"], first.where).data


def compress_stored(
    stored: NDArray[Any] | CompressedTensor,
    steps: tuple[Spec, ...],
    version: int,
    num_threads: int,
    data: WeightData = NO_DATA,
) -> tuple[OperationForm, float]:
    """The result of the steps, and its SNR in dB relative to the stored weight; raises `Skip`.

    The importance of `data` is for the first step, its hessian for every step that uses one.
    """
    tensor: Any = stored
    if len(steps) == 1 and not isinstance(stored, CompressedTensor):
        with _suiting(stored, steps[0].nonfinite):
            of_step = data.of_step(steps[0], stored, is_first=True)
            tensor, snr_db = compression.apply_measured(stored, steps[0], data=of_step, num_threads=num_threads)
    else:
        for index, step in enumerate(steps):
            with _suiting(tensor, step.nonfinite):
                of_step = data.of_step(step, tensor, is_first=index == 0)
                tensor = compression.apply(tensor, step, data=of_step, num_threads=num_threads)
        if isinstance(stored, CompressedTensor):
            decoded = decoded_pieces((stored, tensor), num_threads)
            snr_db = distance(((before, after) for before, after in decoded), num_threads).snr_db
        else:
            snr_db = error(stored, tensor, num_threads=num_threads).snr_db
    with _suiting(stored):
        return lower(tensor, version), snr_db


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
