"""What a report or a plan adds to its table: how rules were read, and what needs attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .records import ALREADY_COMPRESSED, ChangeRecord
from .targets import TargetWarning

_LISTED = 4
_SYSTEMS = {6: "iOS 15", 7: "iOS 16", 8: "iOS 17"}  # the first that load a specification version
_COMPRESSED_WEIGHTS, _QUANTIZED_ACTIVATIONS = 7, 8  # the specification versions that have them first


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
        yield "note", _describe_raise(report.raised_from, bool(getattr(report, "activations", ())))
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


def _describe_raise(raised_from: int, with_activations: bool) -> str:
    version = _QUANTIZED_ACTIVATIONS if with_activations else _COMPRESSED_WEIGHTS
    what = "quantized activations need" if with_activations else "compressed weights need"
    return (
        f"raised from specification version {raised_from} ({_SYSTEMS[raised_from]}) to {version} "
        f"({_SYSTEMS[version]}), which {what}"
    )


def _is_compressed(record: ChangeRecord) -> bool:
    return record.reason == ALREADY_COMPRESSED
