"""Records of a check of a compressed model against its source."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from .distances import finite, in_decibels


@dataclass(frozen=True)
class VerifiedWeight:
    """The result for one constant.

    Attributes
    ----------
    name, function : str
        Name of the constant and of its function.
    shape : tuple of int
        Shape in the source.
    dtype : str
        Element type of the decompressed values in the source.
    status : {"identical", "compressed", "decompressed", "wrong"}
        Stored bit for bit as in the source, stored in a compressed form, stored uncompressed with the values of a
        compressed source, or wrong.
    problem : str or None
        What is wrong.
    snr_db : float or None
        Signal-to-noise ratio of a compressed constant; infinite if nothing was lost.
    cosine : float or None
        Cosine of the angle between the compressed constant and its source, as vectors.
    """

    name: str
    function: str
    shape: tuple[int, ...]
    dtype: str
    status: str
    problem: str | None = None
    snr_db: float | None = None
    cosine: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; lossless weights have ``snr_db`` None and ``lossless`` True."""
        values = dataclasses.asdict(self) | {"shape": list(self.shape), "lossless": self.snr_db == math.inf}
        return values | {"snr_db": finite(self.snr_db), "cosine": finite(self.cosine)}


@dataclass(frozen=True, repr=False)
class Verification:
    """The result of comparing a package with its source.

    Attributes
    ----------
    source, compressed : str
        The packages.
    weights : tuple of VerifiedWeight
        Larger constants in program order, and smaller ones that are wrong.
    problems : tuple of str
        Problems of the package other than those of its weights.
    bytes_before, bytes_after : int
        Bytes of all files of the packages.
    seconds : float
        Duration.
    """

    source: str
    compressed: str
    weights: tuple[VerifiedWeight, ...]
    problems: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems and all(weight.problem is None for weight in self.weights)

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Everything that is wrong, weights included."""
        return (*self.problems, *(f"{each.name}: {each.problem}" for each in self.weights if each.problem))

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        weights = [weight.to_dict() for weight in self.weights]
        return {"ok": self.ok} | values | {"problems": list(self.problems), "weights": weights}

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @property
    def totals(self) -> str:
        """The result in a few lines, problems first."""
        counts = dict.fromkeys(("identical", "compressed", "decompressed", "wrong"), 0)
        for weight in self.weights:
            counts[weight.status] += 1
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count) or "none"
        sizes = f"{format_bytes(self.bytes_before)} -> {format_bytes(self.bytes_after)}"
        lines = [f"wrong: {problem}" for problem in self.all_problems]
        lines.append(f"{'ok' if self.ok else 'FAILED'}: constants: {told}; {sizes}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return f"{render(_COLUMNS, self.weights)}\n{self.totals}"

    def __repr__(self) -> str:
        found = "ok" if self.ok else f"{len(self.all_problems)} problems"
        return f"<Verification {self.compressed}: {found}>"


_COLUMNS = (
    Column("weight", lambda weight: weight.name),
    Column("shape", lambda weight: "x".join(map(str, weight.shape))),
    Column("found", lambda weight: weight.status if weight.problem is None else f"wrong: {weight.problem}"),
    Column("SNR dB", lambda weight: in_decibels(weight.snr_db), right=True),
    Column("cosine", lambda weight: "-" if weight.cosine is None else f"{weight.cosine:.6f}", right=True),
)
