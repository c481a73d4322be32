"""What a report or a plan adds to its table: how rules were read, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from ..format.versions import IOS16, IOS17
from ..program.raising import describe
from .records import ALREADY_COMPRESSED, ChangeRecord
from .targets import TargetWarning

_LISTED = 4


class Remarked(Protocol):
    """A report or a plan."""

    @property
    def weights(self) -> Sequence[ChangeRecord]:
        """One record per constant."""

    @property
    def raised_from(self) -> int | None:
        """The specification version of the program before, if it is raised."""

    @property
    def notes(self) -> Sequence[str]:
        """Rules that were not read literally."""

    @property
    def unmatched_rules(self) -> Sequence[str]:
        """Rules that match no weight."""

    @property
    def warnings(self) -> Sequence[TargetWarning]:
        """Known problems of encodings on the target."""


def remarks(report: Remarked) -> Iterator[tuple[str, str]]:
    """Each with its kind, ``note`` or ``warning``."""
    if report.raised_from is not None:
        yield "note", describe(report.raised_from, IOS17 if getattr(report, "activations", ()) else IOS16)
    yield from (("note", note) for note in report.notes)
    if not any(record.method for record in report.weights) and any(map(_is_compressed, report.weights)):
        yield (
            "note",
            "nothing to do: the weights are already compressed; joint_compression=True compresses them further",
        )
    yield from (("warning", f"no weight matches {rule}") for rule in report.unmatched_rules)
    yield from (("warning", str(warning)) for warning in report.warnings)
    tables = [record.name for record in report.weights if record.position_table and record.method is not None]
    if tables:
        names = ", ".join(tables[:_LISTED]) + (f" and {len(tables) - _LISTED} more" if len(tables) > _LISTED else "")
        yield (
            "note",
            f"position tables are compressed like weights: {names}; keep_position_tables (--keep-position-tables) "
            "leaves them unchanged",
        )


def _is_compressed(record: ChangeRecord) -> bool:
    return record.reason == ALREADY_COMPRESSED
