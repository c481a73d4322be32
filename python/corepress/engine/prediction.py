"""What an allocation expects of a package, in the words of reports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..reporting.wording import format_decibels


@dataclass(frozen=True)
class Expected:
    """A recipe, and what is expected of it.

    Attributes
    ----------
    description : str
        The steps, or "chosen for each weight".
    bytes : int
        Bytes of all files of the package.
    bits_per_weight : float
        Stored bits per weight, of the weights that may be compressed.
    snr_db : float
        Predicted signal-to-noise ratio in dB: of the outputs, or without calibration of the weights on average.
    measured_snr_db : float or None
        The lowest signal-to-noise ratio of any output on the samples that calibration kept; None if none were run.
    """

    description: str
    bytes: int
    bits_per_weight: float
    snr_db: float
    measured_snr_db: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; nothing lost is None."""
        values = dataclasses.asdict(self)
        return {name: _plain(value) if name.endswith("snr_db") else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Expected:
        """The reverse of `to_dict`."""
        return cls(**{**values, "snr_db": math.inf if values["snr_db"] is None else values["snr_db"]})


@dataclass(frozen=True)
class Prediction:
    """What an allocation chose, and what it expects.

    Attributes
    ----------
    target : str
        What was asked for, such as "target_bits 3.5".
    measure : {"weights", "outputs"}
        What errors are of: of the weights, or with calibration of the outputs.
    recipe : Expected
        What was chosen.
    uniform : Expected or None
        The best single candidate for all weights within the same target; None if none fits.
    beyond : Expected or None
        The smallest single candidate that is better and larger, for comparison.
    is_uniform : bool
        Whether that is what was chosen, since no mixture is expected to be better, or was on kept samples.
    gap_db : float
        By how much the predicted error is above the bound of the dual problem, which no choice within the target goes
        below.
    is_optimal : bool
        Whether no choice is known to be better.
    counts : dict of str to int
        Number of weights for each candidate, in words.
    sweep_seconds, seconds : float
        Time of the pass over the weights, and of everything.
    """

    target: str
    measure: str
    recipe: Expected
    uniform: Expected | None
    beyond: Expected | None
    is_uniform: bool
    gap_db: float
    is_optimal: bool
    counts: Mapping[str, int]
    sweep_seconds: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        recipes = (("recipe", self.recipe), ("uniform", self.uniform), ("beyond", self.beyond))
        return values | {
            **{name: None if each is None else each.to_dict() for name, each in recipes},
            "counts": dict(self.counts),
            "gap_db": _plain(self.gap_db),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prediction:
        """The reverse of `to_dict`."""
        recipes = {name: values[name] for name in ("recipe", "uniform", "beyond")}
        return cls(
            **{
                **values,
                **{name: None if each is None else Expected.from_dict(each) for name, each in recipes.items()},
                "gap_db": math.inf if values["gap_db"] is None else values["gap_db"],
            }
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """A heading and a text for each fact."""
        yield "chosen for", self.target
        yield "recipe", self._in_words(self.recipe)
        for heading, uniform in (("uniform", self.uniform), ("next larger", self.beyond)):
            if uniform is not None:
                yield heading, f"{self._in_words(uniform)} ({uniform.description})"
        for description, count in self.counts.items():
            yield "", f"{count:5d}  {description}"
        if self.is_uniform:
            yield "note", "uniform is what you get: no mixture of this size loses less"
        yield "gap", self.gap_in_words
        yield (
            "time to choose",
            f"{self.seconds:.2f} s, {self.sweep_seconds:.2f} s of them for the pass over the weights",
        )

    @property
    def gap_in_words(self) -> str:
        """How much better another choice could be."""
        known = "; no choice within the target is predicted to lose less" if self.is_optimal else ""
        return f"{self.gap_db:.4f} dB above the dual bound{known}"

    def _in_words(self, expected: Expected) -> str:
        of = "of the outputs" if self.measure == "outputs" else "of the weights"
        parts = [
            f"{expected.bytes:,} bytes",
            f"{expected.bits_per_weight:.3f} bits per weight",
            f"predicted SNR {of} {format_decibels(expected.snr_db)}",
        ]
        if expected.measured_snr_db is not None:
            parts.append(f"measured {format_decibels(expected.measured_snr_db)}")
        return ", ".join(parts)


def _plain(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
