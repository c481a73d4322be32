"""Records of what compressing a model would do."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from .distances import finite, in_decibels
from .prediction import Prediction
from .records import IDENTITY_COLUMNS, ChangeRecord, Unchanged, bits_per_weight, unchanged_by_reason
from .remarks import remarks
from .targets import TargetWarning


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
    specification_version : int or None
        The specification version of the result; None for an asset.
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
    specification_version: int | None
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
