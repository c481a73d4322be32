"""The dry run: what compressing would do to each weight, and the size of the result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_threads
from ..compression.weight_data import NO_DATA
from ..config import ConfigLike
from ..errors import NonFiniteError, Skip
from ..overlap import Result, Task
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from ..sources import unchanged
from ..specs import Palettize
from .calibrated import DAMPENING, CalibrationData, as_calibration
from .compressor import Decision, Decisions, choose, compress_stored, decisions_of, stored_values
from .decoded import finite, in_decibels
from .decompressor import release
from .format.data_types import DataType
from .format.package import Package
from .format.values import ValueReader
from .format.weight_file import BlobRecord, WeightFileLayout, WeightFileReader
from .operations import OperationForm
from .program.program import Program, Weight
from .program.storage import check_stored, is_compressed, stored_bytes, visible_weights
from .reports.prediction import Prediction
from .reports.records import IDENTITY_COLUMNS, ChangeRecord, Unchanged, bits_per_weight, identity, unchanged_by_reason
from .reports.remarks import remarks
from .reports.targets import TargetWarning
from .rewrite.driver import ProgressCallback, StrPath
from .rewrite.rewriter import Edit, rewrite
from .sampling import sample_rows
from .sizes import StoredSize, stored_size

if TYPE_CHECKING:
    from . import Statistics


@dataclass(frozen=True)
class PlannedWeight(ChangeRecord):
    """What is to be done to one constant; in addition to the attributes of `ChangeRecord`:

    Attributes
    ----------
    status : {"compress", "keep"}
        What is to be done.
    exact : bool
        Whether `bytes_after` is certain; where it depends on the values, it is an estimate.
    expected_snr_db : float or None
        Signal-to-noise ratio of some of its rows, compressed in this way; None if none were.
    """

    exact: bool
    expected_snr_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; lossless rows have ``expected_snr_db`` None."""
        return super().to_dict() | {"expected_snr_db": finite(self.expected_snr_db)}


@dataclass(frozen=True, repr=False)
class Plan:
    """What compressing a package would do.

    Attributes
    ----------
    source : str
        The package.
    weights : tuple of PlannedWeight
        One record per constant, in program order.
    bytes_before, bytes_after : int
        Bytes of all files of the package, before and after.
    exact : bool
        Whether `bytes_after` is certain, unless a weight turns out to contain NaN or infinite values and is left
        unchanged.
    specification_version : int
        The specification version of the result.
    raised_from : int or None
        The specification version of the program now, if it is to be raised to 7 (iOS 16) for its compressed weights.
    notes : tuple of str
        Rules of the config that were not read literally, and the names they match.
    unmatched_rules : tuple of str
        Rules of the config that match no weight of the package.
    warnings : tuple of TargetWarning
        Known problems of these encodings on the config's target.
    seconds : float
        Duration of planning.
    predicted : Prediction or None
        What is expected of a recipe that was chosen for a target.
    """

    source: str
    weights: tuple[PlannedWeight, ...]
    bytes_before: int
    bytes_after: int
    exact: bool
    specification_version: int
    raised_from: int | None
    notes: tuple[str, ...]
    unmatched_rules: tuple[str, ...]
    warnings: tuple[TargetWarning, ...]
    seconds: float
    predicted: Prediction | None = None

    @property
    def compressed(self) -> int:
        """Number of constants to compress."""
        return sum(weight.status == "compress" for weight in self.weights)

    @property
    def kept(self) -> int:
        """Number of constants to leave unchanged."""
        return len(self.weights) - self.compressed

    @property
    def unchanged(self) -> tuple[Unchanged, ...]:
        """The constants that are left unchanged, and their bytes, reason by reason; the most bytes first."""
        return unchanged_by_reason(self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over all constants of the result, including unchanged ones."""
        return bits_per_weight(sum(weight.bytes_after for weight in self.weights), self.weights)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        totals = {name: getattr(self, name) for name in ("compressed", "kept", "bits_per_weight")}
        return (
            values
            | totals
            | {
                "notes": list(self.notes),
                "unmatched_rules": list(self.unmatched_rules),
                "warnings": [warning.to_dict() for warning in self.warnings],
                "unchanged": [vars(total) for total in self.unchanged],
                "predicted": None if self.predicted is None else self.predicted.to_dict(),
                "weights": [weight.to_dict() for weight in self.weights],
            }
        )

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @property
    def totals(self) -> str:
        """The totals in one line."""
        before, after = format_bytes(self.bytes_before), format_bytes(self.bytes_after)
        certainty = "exactly" if self.exact else "estimated, it depends on the values:"
        return (
            f"{self.compressed} to compress, {self.kept} unchanged; {before} -> {after} ({certainty} "
            f"{self.bytes_after:,} bytes), {self.bits_per_weight:.2f} bits/weight"
        )

    def __str__(self) -> str:
        kept = (f"unchanged: {total}" for total in self.unchanged)
        predicted = () if self.predicted is None else map(" ".join, self.predicted.lines())
        texts = (text for _, text in remarks(self))
        return "\n".join((render(_COLUMNS, self.weights), self.totals, *predicted, *kept, *texts))

    def __repr__(self) -> str:
        return f"<Plan {self.source}: {self.compressed} to compress, {self.bytes_before} -> {self.bytes_after} bytes>"


_COLUMNS = (
    *IDENTITY_COLUMNS,
    Column("to do", lambda weight: weight.method or f"keep: {weight.reason}"),
    Column("bits", lambda weight: f"{weight.bits_per_weight:.2f}", right=True),
    Column("now", lambda weight: format_bytes(weight.bytes_before), right=True),
    Column("then", lambda weight: f"{'' if weight.exact else '~'}{format_bytes(weight.bytes_after)}", right=True),
    Column("SNR dB", lambda weight: expected_decibels(weight), right=True),
)


def expected_decibels(weight: PlannedWeight) -> str:
    """The expected signal-to-noise ratio as text."""
    return "-" if weight.expected_snr_db is None else f"~{in_decibels(weight.expected_snr_db)}"


class _CountingWriter:
    """Takes the place of a weight file's writer, and only counts."""

    def __init__(self) -> None:
        self._layout = WeightFileLayout()

    def append(self, data_type: DataType, count: int, data: Iterable[NDArray[Any]]) -> int:
        """Count a blob."""
        return self._layout.place(data_type.byte_count(count))

    def copy(self, reader: WeightFileReader, record: BlobRecord) -> int:
        """Count a copied blob."""
        return self._layout.place(record.size)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._layout.size

    def __enter__(self) -> _CountingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _CountingOutput:
    """Takes the place of a package's writer, and only counts."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._files: dict[Path, _CountingWriter] = {}
        self._model_size: int | None = None

    def weight_file(self, source_path: Path) -> _CountingWriter:
        """A writer that counts."""
        return self._files.setdefault(source_path, _CountingWriter())

    def write_model(self, data: bytes) -> None:
        """Count the model file."""
        self._model_size = len(data)

    def finish(self) -> None:
        """Do nothing."""

    @property
    def size(self) -> int:
        """Bytes of the finished package."""
        replaced = [(path, writer.size) for path, writer in self._files.items()]
        if self._model_size is not None:
            replaced.append((self._package.model_path, self._model_size))
        return self._package.size + sum(size - path.stat().st_size for path, size in replaced)


def counted_bytes(src: StrPath, forms: Mapping[int, OperationForm]) -> int:
    """Bytes of all files of a package once some weights have other forms, alignment and program included.

    Parameters
    ----------
    src : path-like
        The package.
    forms : dict of int to OperationForm
        Forms by the numbers of the weights among `visible_weights`. Only the sizes of their tensors matter, except for
        those that are stored in the program.
    """
    package = Package.open(src)
    program = Program(package)
    weights = visible_weights(program)
    output = _CountingOutput(package)
    edits = [Edit(weights[number], Task(_given(form), 0), _settled, reads=False) for number, form in forms.items()]
    with ValueReader(package) as values:
        rewrite(program, values, output, edits, num_threads=1)
    return output.size


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
        The package.
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
        One record per weight, and totals: the bytes of all files, alignment and program included.

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
    statistics = as_calibration("plan", calibration)
    chosen = choose(
        "plan",
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
    package = Package.open(src)
    program = Program(package)
    decisions = decisions_of(
        chosen.config,
        strict,
        weight_threshold,
        target,
        joint_compression,
        keep_position_tables,
        importance,
        None if statistics is None else CalibrationData(statistics, calibration_use, dampening),
    )
    decisions.prepare(program)
    weights = visible_weights(program)
    threads = as_threads("plan", num_threads)
    records, edits = [], []
    output = _CountingOutput(package)
    with ValueReader(package) as values:
        check_stored(weights, values)
        for weight in weights:
            record, form, decision = _planned(weight, decisions)
            if expect_snr and decision is not None:
                snr_db = _expected_snr_db(weight, decision, values, threads)
                record = dataclasses.replace(record, expected_snr_db=snr_db)
            records.append(record)
            if form is not None:
                edits.append(Edit(weight, Task(_given(form), 0), _settled, reads=False))
        raised_from = rewrite(program, values, output, edits, num_threads=1)
    return Plan(
        source=os.fspath(src),
        weights=tuple(records),
        bytes_before=package.size,
        bytes_after=output.size,
        exact=all(record.exact for record in records),
        specification_version=program.model.specificationVersion,
        raised_from=raised_from,
        notes=(*chosen.notes, *decisions.notes),
        unmatched_rules=decisions.unmatched_rules,
        warnings=decisions.warnings(record.name for record in records if record.status == "compress"),
        seconds=time.perf_counter() - started,
        predicted=chosen.predicted,
    )


def _given(form: OperationForm) -> Callable[[int], OperationForm]:
    return lambda threads: form


def _settled(result: Result[OperationForm]) -> OperationForm:
    return result()


def _expected_snr_db(weight: Weight, decision: Decision, values: ValueReader, threads: int) -> float | None:
    """The loss in some rows of a weight; None if it is already compressed, or if the loss cannot be estimated."""
    custom = any(isinstance(step, Palettize) and step.mode == "custom" for step in decision.steps)
    if is_compressed(weight) or custom:
        return None
    stored = stored_values(weight, values)
    rows = sample_rows(stored, decision.steps) if isinstance(stored, np.ndarray) else None
    # Error feedback is between all columns of a row: the loss in a weight is then that of its nearest values, or more.
    known = decision.data if decision.data.importance is not None else NO_DATA
    data = known.mapped(lambda array: sample_rows(array, decision.steps))
    try:
        return None if rows is None else compress_stored(rows, decision.steps, weight.first.version, threads, data)[1]
    except (Skip, NonFiniteError):
        return None
    finally:
        release(weight.first, values)


def _planned(weight: Weight, decisions: Decisions) -> tuple[PlannedWeight, OperationForm | None, Decision | None]:
    first, size = weight.first, stored_bytes(weight)
    form, decision, exact, keep = None, None, True, None
    try:
        decision = decisions.decide(weight)
        stored = _stored_size(weight, decisions, decision)
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
        bits_per_weight=8.0 * after / max(1, prod(first.shape)),
        bytes_before=size,
        bytes_after=after,
        exact=exact,
    )
    return record, form, None if keep else decision


def _stored_size(weight: Weight, decisions: Decisions, decision: Decision) -> StoredSize:
    try:
        return stored_size(weight, decision.steps)
    except Skip as reason:
        raise decisions.kept(weight, reason) from None
