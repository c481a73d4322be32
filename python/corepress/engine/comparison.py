"""Records of a comparison of two models: of weights, of outputs, and of the values in between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..compression.metrics import Error, snr_db
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from .distances import Undecodable, finite, in_decibels
from .weights import Weight

DIVERGED = 20.0  # dB: an error of a tenth of the values


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


@dataclass(frozen=True)
class ComparedOutput:
    """How far apart an output of two models is, over all samples.

    Attributes
    ----------
    name : str
        Name of the output.
    samples : int
        Number of predictions.
    snr_db : float
        Signal-to-noise ratio of the second model's output relative to the first's; infinite if they are equal.
    cosine : float
        Cosine of the angle between them as vectors.
    max_abs : float
        Largest difference.
    """

    name: str
    samples: int
    snr_db: float
    cosine: float
    max_abs: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; equal outputs have ``snr_db`` None and ``lossless`` True."""
        values = {
            name: finite(value) if isinstance(value, float) else value
            for name, value in dataclasses.asdict(self).items()
        }
        return values | {"lossless": self.snr_db == math.inf}

    def __str__(self) -> str:
        ratio = "exact" if self.snr_db == math.inf else f"{self.snr_db:.1f} dB"
        return f"output {self.name}: {ratio}, cosine {self.cosine:.6f}, largest difference {self.max_abs:.3g}"


@dataclass(frozen=True)
class ComparedValue:
    """How far apart an intermediate result of two models is, over all samples.

    Attributes
    ----------
    name : str
        Name of the operation's output, which both models have.
    shape : tuple of int
        Shape in the first sample.
    snr_db, cosine, max_abs : float
        As for `ComparedOutput`.
    """

    name: str
    shape: tuple[int, ...]
    snr_db: float
    cosine: float
    max_abs: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; equal values have ``snr_db`` None and ``lossless`` True."""
        values = {name: finite(getattr(self, name)) for name in ("snr_db", "cosine", "max_abs")}
        return {"name": self.name, "shape": list(self.shape), **values, "lossless": self.snr_db == math.inf}


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
    seconds : float
        Duration.
    outputs : tuple of ComparedOutput
        How far apart the predictions are; empty if none were made.
    note : str or None
        Why no predictions were made.
    backend, precision : str or None
        What made the predictions, and how precisely.
    drawn : int
        Number of inputs that were drawn, for lack of samples.
    metric : str or None
        Name of the metric that was asked for.
    scores : tuple of float
        Its value, higher is better: one for a metric that compares the models, else those of the first and the second.
    layers : tuple of ComparedValue
        How far apart intermediate results are that both models have, in the order in which the first computes them.
    unmatched_layers : int
        Number of intermediate results that only one of them has.
    """

    first: str
    second: str
    weights: tuple[ComparedWeight, ...]
    only_in_first: tuple[str, ...]
    only_in_second: tuple[str, ...]
    bytes: int
    other_bytes: int
    snr_db: float | None
    seconds: float
    outputs: tuple[ComparedOutput, ...] = ()
    note: str | None = None
    backend: str | None = None
    precision: str | None = None
    drawn: int = 0
    metric: str | None = None
    scores: tuple[float, ...] = ()
    layers: tuple[ComparedValue, ...] = ()
    unmatched_layers: int = 0

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
            "scores": [finite(score) for score in self.scores],
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @property
    def totals(self) -> str:
        """The result in a few lines."""
        different = len(self.different)
        overall = "" if self.snr_db is None else f", {in_decibels(self.snr_db)} dB together"
        sizes = f"{format_bytes(self.bytes)} and {format_bytes(self.other_bytes)}"
        count = len(self.weights)
        lines = [sizes]
        if count or self.only_in_first or self.only_in_second:
            lines = [f"{count} constants: {count - different} equal, {different} different{overall}; {sizes}"]
        for which, names in ((self.first, self.only_in_first), (self.second, self.only_in_second)):
            if names:
                lines.append(f"only in {which}: {', '.join(names)}")
        if self.drawn:
            lines.append(
                f"outputs for {self.drawn} inputs drawn from a normal distribution, which no model was trained on; "
                "give samples for a measure that counts"
            )
        lines += [str(output) for output in self.outputs]
        if self.metric is not None:
            lines.append(f"metric {self.metric}: {' and '.join(f'{score:.6g}' for score in self.scores)}")
        lines += self._parting()
        if self.backend is not None:
            how = "" if self.precision is None else f" in {self.precision}"
            lines.append(f"run by {self.backend}{how}")
        lines += [self.note] if self.note else []
        return "\n".join(lines)

    @property
    def first_different_layer(self) -> ComparedValue | None:
        """The first intermediate result that differs."""
        return next((layer for layer in self.layers if layer.snr_db != math.inf), None)

    @property
    def first_diverging_layer(self) -> ComparedValue | None:
        """The first intermediate result whose signal-to-noise ratio is below `DIVERGED`."""
        return next((layer for layer in self.layers if layer.snr_db < DIVERGED), None)

    def _parting(self) -> list[str]:
        if not self.layers:
            return []
        first, diverging = self.first_different_layer, self.first_diverging_layer
        others = f"; {self.unmatched_layers} are in one model only" if self.unmatched_layers else ""
        lines = [f"{len(self.layers)} intermediate results in both{others}"]
        if first is None:
            return [*lines, "none differs"]
        lines.append(f"the first that differs: {first.name}, {in_decibels(first.snr_db)} dB")
        if diverging is not None:
            lines.append(f"the first below {DIVERGED:.0f} dB: {diverging.name}, {in_decibels(diverging.snr_db)} dB")
        else:
            lowest = min(self.layers, key=lambda layer: layer.snr_db)
            lines.append(f"none is below {DIVERGED:.0f} dB; the lowest: {lowest.name}, {in_decibels(lowest.snr_db)} dB")
        return lines

    @property
    def layer_table(self) -> str:
        """The intermediate results as a table, in the order of computation."""
        return render(_LAYER_COLUMNS, self.layers)

    def __str__(self) -> str:
        layers = f"\n{self.layer_table}" if self.layers else ""
        return f"{render(_COLUMNS, self.weights)}{layers}\n{self.totals}"

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
_LAYER_COLUMNS = (
    Column("result", lambda layer: layer.name),
    Column("shape", lambda layer: "x".join(map(str, layer.shape))),
    Column("SNR dB", lambda layer: in_decibels(layer.snr_db), right=True),
    Column("cosine", lambda layer: f"{layer.cosine:.6f}", right=True),
    Column("largest", lambda layer: f"{layer.max_abs:.3g}", right=True),
)


class ComparedWeights:
    """Records of weights, and the signal-to-noise ratio of all of them together."""

    def __init__(self) -> None:
        self.records: list[ComparedWeight] = []
        self._signal: list[float] = []
        self._noise: list[float] = []

    def compare(self, first: Weight, second: Weight, distance: Callable[[], Error]) -> None:
        """Add the record of two weights; `distance` may raise `Undecodable`, as weights of other kinds are."""
        found: dict[str, Any] = {}
        sse = 0.0
        try:
            if (first.dtype, first.shape) != (second.dtype, second.shape):
                raise Undecodable(f"{first.dtype} {first.shape} and {second.dtype} {second.shape}")
            error = distance()
            sse = 0.0 if math.isnan(error.sse) else error.sse
            found = {"snr_db": error.snr_db, "cosine": error.cosine, "max_abs": error.max_abs}
        except Undecodable as reason:
            found = {"problem": str(reason)}
        record = ComparedWeight(
            name=first.name,
            function=first.function,
            shape=first.shape,
            storage=first.storage,
            other_storage=second.storage,
            bytes=first.stored_bytes,
            other_bytes=second.stored_bytes,
            **found,
        )
        self.add(record, sse)

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
