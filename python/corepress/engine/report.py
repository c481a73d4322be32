"""What a run did, weight by weight."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any

from ..outputs import write_output
from ..paths import user_path
from ..reporting.documents import from_json, to_json
from ..reporting.tables import Column, format_bytes, render
from .activations import ActivationRecord
from .prediction import Prediction
from .records import IDENTITY_COLUMNS, ChangeRecord, Unchanged, bits_per_weight, unchanged_by_reason
from .remarks import remarks
from .targets import TargetWarning


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    name : str
        The constant that was just finished; empty at the start.
    done_weights, total_weights : int
        Single weights (elements, not constants) finished, and to do in all.
    done_bytes, total_bytes : int
        The bytes they occupy in the source.
    """

    name: str
    done_weights: int
    total_weights: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class WeightRecord(ChangeRecord):
    """What was done to one constant; in addition to the attributes of `ChangeRecord`:

    Attributes
    ----------
    status : {"compressed", "decompressed", "kept"}
        What was done.
    snr_db : float or None
        Signal-to-noise ratio of a compressed constant; infinite if nothing was lost.
    """

    snr_db: float | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; lossless weights have ``snr_db`` None and ``lossless`` True."""
        values = super().to_dict()
        finite = self.snr_db is not None and math.isfinite(self.snr_db)
        values["snr_db"] = self.snr_db if finite else None
        values["lossless"] = self.snr_db == math.inf
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> WeightRecord:
        """The reverse of `to_dict`."""
        values = dict(values)
        del values["position_table"]  # derived from the name
        if values.pop("lossless"):
            values["snr_db"] = math.inf
        return cls(**{**values, "consumers": tuple(values["consumers"]), "shape": tuple(values["shape"])})


@dataclass(frozen=True, repr=False)
class Report:
    """What a run did.

    Attributes
    ----------
    source, destination : str
        The packages.
    weights : tuple of WeightRecord
        One record per constant, in program order.
    bytes_before, bytes_after : int
        Bytes of all files of the packages.
    seconds : float
        Duration.
    peak_memory_bytes : int or None
        Largest resident memory of the process so far; None if the system does not report it.
    specification_version : int or None
        The specification version of the result; None if unknown.
    raised_from : int or None
        The specification version of the program before, if it was raised to 7 (iOS 16) for its compressed weights.
    notes : tuple of str
        Rules of the config that were not read literally, and the names they match.
    unmatched_rules : tuple of str
        Rules of the config that match no weight of the package.
    warnings : tuple of TargetWarning
        Known problems of the new encodings on the config's target.
    activations : tuple of ActivationRecord
        What `quantize_activations` did to each operation that it may quantize.
    predicted : Prediction or None
        What was expected of a recipe that was chosen for a target, and of uniform bits of the same size.
    """

    source: str
    destination: str
    weights: tuple[WeightRecord, ...]
    bytes_before: int
    bytes_after: int
    seconds: float
    peak_memory_bytes: int | None
    specification_version: int | None = None
    raised_from: int | None = None
    notes: tuple[str, ...] = ()
    unmatched_rules: tuple[str, ...] = ()
    warnings: tuple[TargetWarning, ...] = ()
    activations: tuple[ActivationRecord, ...] = ()
    predicted: Prediction | None = None

    @property
    def compressed(self) -> int:
        """Number of constants that were compressed."""
        return sum(record.status == "compressed" for record in self.weights)

    @property
    def decompressed(self) -> int:
        """Number of constants that were decompressed."""
        return sum(record.status == "decompressed" for record in self.weights)

    @property
    def kept(self) -> int:
        """Number of constants that were left unchanged."""
        return sum(record.status == "kept" for record in self.weights)

    @property
    def quantized_operations(self) -> int:
        """Number of operations whose inputs were quantized."""
        return sum(record.status == "quantized" for record in self.activations)

    @property
    def weight_count(self) -> int:
        """Number of weights (elements) that were compressed or decompressed."""
        return sum(record.size for record in self.weights if record.status != "kept")

    @property
    def weights_per_second(self) -> float:
        """Speed of the whole run, reading and writing included."""
        return self.weight_count / self.seconds if self.seconds else 0.0

    @property
    def unchanged(self) -> tuple[Unchanged, ...]:
        """The constants that are left unchanged, and their bytes, reason by reason; the most bytes first."""
        return unchanged_by_reason(self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight over all constants, including unchanged ones."""
        return bits_per_weight(sum(record.bytes_after for record in self.weights), self.weights)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "source": self.source,
            "destination": self.destination,
            "compressed": self.compressed,
            "decompressed": self.decompressed,
            "kept": self.kept,
            "weight_count": self.weight_count,
            "bits_per_weight": self.bits_per_weight,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
            "seconds": self.seconds,
            "weights_per_second": self.weights_per_second,
            "peak_memory_bytes": self.peak_memory_bytes,
            "specification_version": self.specification_version,
            "raised_from": self.raised_from,
            "notes": list(self.notes),
            "unmatched_rules": list(self.unmatched_rules),
            "warnings": [warning.to_dict() for warning in self.warnings],
            "unchanged": [vars(total) for total in self.unchanged],
            "predicted": None if self.predicted is None else self.predicted.to_dict(),
            "weights": [record.to_dict() for record in self.weights],
            "activations": [record.to_dict() for record in self.activations],
        }

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The reverse of `to_dict`; totals are computed again."""
        given = {field.name: values[field.name] for field in dataclasses.fields(cls) if field.name in values}
        if given.get("predicted") is not None:
            given["predicted"] = Prediction.from_dict(given["predicted"])
        given["weights"] = tuple(map(WeightRecord.from_dict, values["weights"]))
        given["warnings"] = tuple(map(TargetWarning.from_dict, values["warnings"]))
        given["activations"] = tuple(map(ActivationRecord.from_dict, values.get("activations", ())))
        given |= {name: tuple(values[name]) for name in ("notes", "unmatched_rules")}
        return cls(**given)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The reverse of `to_json`."""
        return cls.from_dict(from_json(text))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """Load a report that `save` wrote."""
        return cls.from_json(user_path(path).read_text(encoding="utf-8-sig"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as JSON; the file appears only when it is complete."""
        write_output(user_path(path), self.to_json() + "\n")

    def __str__(self) -> str:
        table = render(_COLUMNS, self.weights)
        before, after = format_bytes(self.bytes_before), format_bytes(self.bytes_after)
        changed, speed = len(self.weights) - self.kept, self.weights_per_second / 1e6
        totals = (
            f"{changed} changed, {self.kept} unchanged; {before} -> {after}, "
            f"{self.bits_per_weight:.2f} bits/weight; {self.seconds:.2f} s, {speed:.1f} M weights/s"
        )
        if self.activations:
            table += f"\n\n{render(_ACTIVATION_COLUMNS, self.activations)}\n"
            totals += f"\n{self.quantized_operations} of {len(self.activations)} operations have quantized inputs"
        kept = (f"unchanged: {total}" for total in self.unchanged)
        predicted = () if self.predicted is None else map(" ".join, self.predicted.lines())
        return "\n".join((table, totals, *predicted, *kept, *(text for _, text in remarks(self))))

    def __repr__(self) -> str:
        return (
            f"<Report {self.destination}: {len(self.weights) - self.kept} changed, {self.kept} unchanged, "
            f"{self.bits_per_weight:.3f} bits/weight>"
        )


def _signal_to_noise(record: WeightRecord) -> str:
    if record.snr_db is None:
        return "-"
    return "exact" if record.snr_db == math.inf else f"{record.snr_db:.1f}"


def _scales(record: ActivationRecord) -> str:
    pairs = dict(record.inputs)
    if record.output is not None and record.output_parameters is not None:
        pairs[f"-> {record.output}"] = record.output_parameters
    told = [f"{name}: {each.scale:.4g} x (q - {each.zero_point or 0})" for name, each in pairs.items()]
    return ", ".join(told if record.result_reason is None else [*told, f"result not: {record.result_reason}"])


_ACTIVATION_COLUMNS = (
    Column("operation", lambda record: record.name),
    Column("type", lambda record: record.type),
    Column("quantized", lambda record: _scales(record) if record.reason is None else f"no: {record.reason}"),
)
_COLUMNS = (
    *IDENTITY_COLUMNS,
    Column("done", lambda record: record.method or f"kept: {record.reason}"),
    Column("bits", lambda record: f"{record.bits_per_weight:.2f}", right=True),
    Column("before", lambda record: format_bytes(record.bytes_before), right=True),
    Column("after", lambda record: format_bytes(record.bytes_after), right=True),
    Column("SNR dB", _signal_to_noise, right=True),
)
