"""The few lines that a command prints about what it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .wording import format_bytes, format_count, format_decibels

if TYPE_CHECKING:
    from ..coreml import Report

NAMED_PER_REASON = 8


def summarize(report: Report) -> str:
    """Sizes, quality and the weights that stayed as they were, in a handful of lines."""
    return "\n".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    changed = [record for record in report.weights if record.status != "kept"]
    kept = [record for record in report.weights if record.status == "kept"]
    yield f"wrote {report.destination}"
    sizes = f"{format_bytes(report.bytes_before)} -> {format_bytes(report.bytes_after)}"
    yield f"  size             {sizes}, {_change(report.bytes_before, report.bytes_after)}"
    yield f"  bits per weight  {report.bits_per_weight:.2f}"
    speed = f", {format_count(report.weights_per_second)} weights/s" if changed else ""
    memory = "" if report.peak_memory_bytes is None else f", {format_bytes(report.peak_memory_bytes)} peak memory"
    yield f"  time             {report.seconds:.2f} s{speed}{memory}"
    measured = [(record.snr_db, record.name) for record in changed if record.snr_db is not None]
    if measured:
        snr, name = min(measured)
        yield f"  lowest SNR       {format_decibels(snr)} ({name})"
    done = f"{len(changed)} {changed[0].status}" if changed else "none changed"
    yield f"  weights          {done}, {len(kept)} kept as they were"
    yield from _kept_lines(report)
    yield from (f"  warning          no weight is meant by {rule}" for rule in report.unmatched_rules)
    yield from (f"  warning          {warning}" for warning in report.warnings)


def _change(before: int, after: int) -> str:
    if round(before / max(after, 1), 2) == 1:
        return "the same"
    return f"{before / max(after, 1):.2f} times smaller" if after < before else f"{after / before:.2f} times larger"


def _kept_lines(report: Report) -> Iterator[str]:
    for total in report.unchanged:
        yield f"    {total.weights:5d}  {format_bytes(total.bytes):>8}  {total.reason}"
        if not total.planned:
            records = [record for record in report.weights if record.reason == total.reason]
            names = [record.name for record in records[:NAMED_PER_REASON]]
            names += [f"and {len(records) - len(names)} more (--verbose)"] if len(records) > len(names) else []
            yield from (f"                     {name}" for name in names)
