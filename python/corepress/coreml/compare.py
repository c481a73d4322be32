"""How far apart two packages are: weight by weight and, where Core ML can run them, by their predictions."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..arrays import as_threads
from ..compression.metrics import snr_db
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from ..sources import unchanged
from .decoded import Undecodable, decoded_pairs, distance, finite, in_decibels
from .format.package import Package
from .format.values import ValueReader
from .predictions import ComparedOutput, compare_predictions, prediction_obstacle
from .program.program import Definition, Program, Weight
from .program.renames import read_renamed
from .program.storage import describe_storage, stored_bytes, visible_weights
from .rewrite.driver import StrPath


@dataclass(frozen=True)
class ComparedWeight:
    """How far apart a constant is in two packages.

    Attributes
    ----------
    name, function : str
        Name of the constant and of its function.
    shape : tuple of int
        Shape in the first package.
    storage, other_storage : str
        How each package stores it.
    bytes, other_bytes : int
        Stored bytes in each, including tables and scales.
    snr_db : float or None
        Signal-to-noise ratio of the second against the first; infinite if they are equal, None if they cannot be
        compared.
    cosine, max_abs : float or None
        Cosine of the angle between them as vectors, and the largest difference.
    problem : str or None
        Why they cannot be compared.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    storage: str
    other_storage: str
    bytes: int
    other_bytes: int
    snr_db: float | None = None
    cosine: float | None = None
    max_abs: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; equal constants have ``snr_db`` None and ``lossless`` True."""
        values = dataclasses.asdict(self) | {"shape": list(self.shape), "lossless": self.snr_db == math.inf}
        return values | {name: finite(values[name]) for name in ("snr_db", "cosine", "max_abs")}


@dataclass(frozen=True, repr=False)
class Comparison:
    """How far apart two packages are.

    Attributes
    ----------
    first, second : str
        The packages.
    weights : tuple of ComparedWeight
        Constants that both have, in the first's program order.
    only_in_first, only_in_second : tuple of str
        Names of constants that one of them lacks.
    bytes, other_bytes : int
        Bytes of all files of the packages.
    snr_db : float or None
        Signal-to-noise ratio of all constants that differ, taken together; None if none does.
    outputs : tuple of ComparedOutput
        How far apart the predictions are; empty if none were made.
    note : str or None
        Why no predictions were made.
    seconds : float
        Duration.
    """

    first: str
    second: str
    weights: tuple[ComparedWeight, ...]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    bytes: int
    other_bytes: int
    snr_db: float | None
    outputs: tuple[ComparedOutput, ...]
    note: str | None
    seconds: float

    @property
    def different(self) -> tuple[ComparedWeight, ...]:
        """The constants whose values differ or cannot be compared."""
        return tuple(weight for weight in self.weights if weight.snr_db != math.inf)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return values | {
            "snr_db": finite(self.snr_db),
            "only_in_first": list(self.only_in_first),
            "only_in_second": list(self.only_in_second),
            "weights": [weight.to_dict() for weight in self.weights],
            "outputs": [output.to_dict() for output in self.outputs],
        }

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @property
    def totals(self) -> str:
        """The result in a few lines."""
        different = len(self.different)
        overall = "" if self.snr_db is None else f", {in_decibels(self.snr_db)} dB together"
        lines = [
            f"{len(self.weights)} constants: {len(self.weights) - different} equal, {different} different{overall}; "
            f"{format_bytes(self.bytes)} and {format_bytes(self.other_bytes)}"
        ]
        for which, names in ((self.first, self.only_in_first), (self.second, self.only_in_second)):
            if names:
                lines.append(f"only in {which}: {', '.join(names)}")
        lines += [str(output) for output in self.outputs]
        lines += [self.note] if self.note else []
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{render(_COLUMNS, self.weights)}\n{self.totals}"

    def __repr__(self) -> str:
        return f"<Comparison of {self.first} and {self.second}: {len(self.different)} of {len(self.weights)} differ>"


_COLUMNS = (
    Column("weight", lambda weight: weight.name),
    Column("shape", lambda weight: "x".join(map(str, weight.shape))),
    Column("first", lambda weight: weight.storage),
    Column("second", lambda weight: weight.problem or weight.other_storage),
    Column("bytes", lambda weight: f"{format_bytes(weight.bytes)} / {format_bytes(weight.other_bytes)}", right=True),
    Column("SNR dB", lambda weight: in_decibels(weight.snr_db), right=True),
    Column("cosine", lambda weight: "-" if weight.cosine is None else f"{weight.cosine:.6f}", right=True),
    Column("largest", lambda weight: "-" if weight.max_abs is None else f"{weight.max_abs:.3g}", right=True),
)


class ComparedWeights:
    """Records of weights, and the signal-to-noise ratio of all of them together."""

    def __init__(self) -> None:
        self.records: list[ComparedWeight] = []
        self._signal: list[float] = []
        self._noise: list[float] = []

    def add(self, record: ComparedWeight, sse: float) -> None:
        """Add a record, and the sum of squared differences of its weight."""
        self.records.append(record)
        if record.snr_db is not None and sse > 0:
            self._signal.append(sse * 10 ** (record.snr_db / 10))
            self._noise.append(sse)

    @property
    def snr_db(self) -> float | None:
        """The signal-to-noise ratio in dB; None if no weights differ."""
        return snr_db(math.fsum(self._signal), math.fsum(self._noise)) if self._noise else None


@unchanged("first", "second")
def compare(
    first: StrPath,
    second: StrPath,
    *,
    predictions: bool = False,
    inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    samples: int = 4,
    num_threads: int | None = None,
) -> Comparison:
    """Report how far apart two packages are.

    Parameters
    ----------
    first, second : path-like
        The packages; distances are relative to the first.
    predictions : bool
        Also run both models and compare their outputs, which needs macOS and coremltools; on other systems
        `Comparison.note` says so.
    inputs : dict or list of dict, optional
        Inputs by name for the predictions; None uses fixed samples of a normal distribution.
    samples : int
        Number of samples.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.

    Returns
    -------
    Comparison
        One record per constant that both packages have, and totals.

    Raises
    ------
    FormatError
        If a package is damaged.
    MissingExtraError
        If predictions are asked for on a Mac without coremltools.
    """
    num_threads = as_threads("compare", num_threads)
    note = prediction_obstacle("compare") if predictions or inputs is not None else None
    started = time.perf_counter()
    packages = Package.open(first), Package.open(second)
    program = Program(packages[0])
    programs = program, read_renamed(packages[1], program)
    ours, theirs = (visible_weights(program) for program in programs)
    our_names, their_names = _by_name(ours), _by_name(theirs)
    compared = ComparedWeights()
    with ValueReader(packages[0]) as values, ValueReader(packages[1]) as others:
        for weight in ours:
            other = next((their_names[key] for key in _keys(weight) if key in their_names), None)
            if other is not None:
                compared.add(*_compare(weight, other, values, others, num_threads))
    outputs: tuple[ComparedOutput, ...] = ()
    if (predictions or inputs is not None) and note is None:
        outputs = compare_predictions(packages[0].root, packages[1].root, inputs, samples)
    return Comparison(
        first=os.fspath(first),
        second=os.fspath(second),
        weights=tuple(compared.records),
        only_in_first=_only(ours, their_names),
        only_in_second=_only(theirs, our_names),
        bytes=packages[0].size,
        other_bytes=packages[1].size,
        snr_db=compared.snr_db,
        outputs=outputs,
        note=note,
        seconds=time.perf_counter() - started,
    )


_Key = tuple[str, str]


def _keys(weight: Weight) -> list[_Key]:
    return [(definition.function, definition.name) for definition in weight.definitions]


def _by_name(weights: list[Weight]) -> dict[_Key, Weight]:
    return {key: weight for weight in weights for key in _keys(weight)}


def _only(weights: list[Weight], others: dict[_Key, Weight]) -> tuple[str, ...]:
    return tuple(weight.first.name for weight in weights if not any(key in others for key in _keys(weight)))


def _compare(
    weight: Weight, other: Weight, values: ValueReader, others: ValueReader, num_threads: int | None
) -> tuple[ComparedWeight, float]:
    """The record of a constant, and its sum of squared differences."""
    found: dict[str, Any] = {}
    sse = 0.0
    first, second = weight.first, other.first
    try:
        _require_alike(first, second)
        error = distance(decoded_pairs((first, values), (second, others), num_threads), num_threads)
        sse = 0.0 if math.isnan(error.sse) else error.sse
        found = {"snr_db": error.snr_db, "cosine": error.cosine, "max_abs": error.max_abs}
    except Undecodable as reason:
        found = {"problem": str(reason)}
    record = ComparedWeight(
        name=first.name,
        function=first.function,
        shape=first.shape,
        storage=describe_storage(weight),
        other_storage=describe_storage(other),
        bytes=stored_bytes(weight),
        other_bytes=stored_bytes(other),
        **found,
    )
    return record, sse


def _require_alike(first: Definition, second: Definition) -> None:
    if (first.data_type, first.shape) != (second.data_type, second.shape):
        ours, theirs = (f"{each.data_type.name} {each.shape}" for each in (first, second))
        raise Undecodable(f"{ours} and {theirs}")
