"""What a report or a plan adds to its table: how rules were read, and what to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .records import ChangeRecord
from .targets import TargetWarning

_LISTED = 4


class Remarked(Protocol):
    """A report or a plan."""

    @property
    def weights(self) -> Sequence[ChangeRecord]:
        """One record per constant."""

    @property
    def notes(self) -> Sequence[str]:
        """Rules that were read in another way than they are written."""

    @property
    def unmatched_rules(self) -> Sequence[str]:
        """Rules that match no weight."""

    @property
    def warnings(self) -> Sequence[TargetWarning]:
        """What is known against encodings on the target."""


def remarks(report: Remarked) -> Iterator[tuple[str, str]]:
    """Each with its kind, ``note`` or ``warning``."""
    yield from (("note", note) for note in report.notes)
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
