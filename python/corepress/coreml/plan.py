"""The dry run: what compressing would do to each weight, and the size of the result."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..arrays import as_threads
from ..config import ConfigLike
from ..engine.calibrated import DAMPENING
from ..engine.facade import statistics_of
from ..engine.planned import Plan
from ..engine.planning import expected_snr_db, planned
from ..engine.request import Request
from ..engine.run import ProgressCallback
from ..overlap import Result, Task
from ..paths import StrPath
from ..sources import unchanged
from .compressor import stored_values
from .decisions import PackageDecisions
from .decompressor import release
from .format.data_types import DataType
from .format.package import Package
from .format.values import ValueReader
from .format.weight_file import BlobRecord, WeightFileLayout, WeightFileReader
from .operations import OperationForm, lower_to
from .program.program import Program
from .program.weights import check_stored, visible_weights
from .rewrite.rewriter import Edit, rewrite
from .sizes import stored_size

if TYPE_CHECKING:
    from . import Statistics


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
    from .. import coreml  # whose package is not complete while this module is imported

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
        calibration=statistics_of("plan", coreml, calibration),
        calibration_use=calibration_use,
        dampening=dampening,
        num_threads=threads,
    )
    chosen = request.choose(coreml, src)
    package = Package.open(src)
    program = Program(package)
    decisions = request.decisions(PackageDecisions, chosen)
    decisions.prepare(program)
    weights = visible_weights(program)
    records, edits = [], []
    output = _CountingOutput(package)
    with ValueReader(package) as values:
        check_stored(weights, values)
        for weight in weights:
            record, form, decision = planned(weight, decisions, stored_size)
            if expect_snr and decision is not None:
                stored, lowered = partial(stored_values, weight, values), lower_to(weight.first.version)
                snr_db = expected_snr_db(weight, decision, stored, lowered, threads)
                release(weight.first, values)
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
