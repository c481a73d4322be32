"""What a command prints without --verbose: totals, and what needs attention."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..engine.planned import expected_decibels
from ..engine.records import ConstantRecord
from ..engine.remarks import remarks
from ..reporting.tables import Column, render
from ..reporting.wording import format_bytes, format_count, format_decibels, shorten_alike
from .shell_words import in_shell_words

if TYPE_CHECKING:
    from ..coreml import Inspection, Plan, Report

NAMED_PER_REASON = 8
LARGEST_SHOWN = 20
SMALL = 2048  # elements; what compression leaves alone anyway is not worth a row


def summarize(report: Report, flags: Mapping[str, str]) -> str:
    """Sizes, quality and the weights that were left unchanged, in a few lines."""
    return "\n".join(_of_report(report, flags))


def summarize_plan(plan: Plan, flags: Mapping[str, str]) -> str:
    """The largest weights to compress in a table that fits the terminal, the number of the others, and the sizes."""
    return "\n".join(_of_plan(plan, flags))


def summarize_inspection(inspection: Inspection) -> str:
    """The larger weights in a table that fits the terminal, and the number of smaller ones."""
    large = [weight for weight in inspection.weights if weight.size > SMALL and len(weight.shape) > 1]
    small = len(inspection.weights) - len(large)
    counted = [f"and {_many(small, 'small constant')} (--verbose lists them)"] if small and large else []
    table = _fitted(_STORED, large or inspection.weights)
    return "\n".join((inspection.heading, "", table, *counted, inspection.totals))


def _of_report(report: Report, flags: Mapping[str, str]) -> Iterator[str]:
    changed = [record for record in report.weights if record.status != "kept"]
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
    yield f"  weights          {done}, {report.kept} unchanged"
    yield from _predicted(report)
    yield from _unchanged(report)
    if report.activations:
        yield from _activations(report)
    yield from _remarks(report, flags)


def _activations(report: Report) -> Iterator[str]:
    yield f"  activations      {report.quantized_operations} of {_many(len(report.activations), 'operation')} quantized"
    counts = Counter(f"{each.type}: {each.reason}" for each in report.activations if each.reason is not None)
    for reason, count in counts.most_common(NAMED_PER_REASON):
        yield f"    {count:5d}  {reason}"


def _of_plan(plan: Plan, flags: Mapping[str, str]) -> Iterator[str]:
    changed = [weight for weight in plan.weights if weight.status == "compress"]
    if changed:
        shown = {id(each) for each in sorted(changed, key=lambda weight: -weight.bytes_before)[:LARGEST_SHOWN]}
        yield _fitted(_PLANNED, [weight for weight in changed if id(weight) in shown])
        rest = [weight for weight in changed if id(weight) not in shown]
        if rest:
            sizes = (sum(getattr(each, name) for each in rest) for name in ("bytes_before", "bytes_after"))
            now, then = map(format_bytes, sizes)
            yield f"and {_many(len(rest), 'smaller weight')}, {now} -> {then} (--verbose lists them)"
        yield ""
    before, after = format_bytes(plan.bytes_before), format_bytes(plan.bytes_after)
    certainty = "exactly" if plan.exact else "about"
    yield f"  size             {before} -> {after}, {_change(plan.bytes_before, plan.bytes_after)}"
    yield f"                   ({certainty} {plan.bytes_after:,} bytes{'' if plan.exact else ', by the values'})"
    yield f"  bits per weight  {plan.bits_per_weight:.2f}"
    expected = [(each.expected_snr_db, each.name) for each in changed if each.expected_snr_db is not None]
    if expected:
        snr, name = min(expected)
        yield f"  lowest SNR       about {format_decibels(snr)} ({name})"
    yield f"  weights          {len(changed)} to compress, {plan.kept} unchanged"
    yield from _predicted(plan)
    yield from _unchanged(plan)
    yield from _remarks(plan, flags)


def _predicted(report: Report | Plan) -> Iterator[str]:
    if report.predicted is not None:
        yield from (f"  {heading:16} {text}" for heading, text in report.predicted.lines())


def _remarks(report: Any, flags: Mapping[str, str]) -> Iterator[str]:
    yield from (f"  {kind:16} {in_shell_words(text, flags)}" for kind, text in remarks(report))


def _change(before: int, after: int) -> str:
    if round(before / max(after, 1), 2) == 1:
        return "the same"
    return f"{before / max(after, 1):.2f} times smaller" if after < before else f"{after / before:.2f} times larger"


def _unchanged(report: Report | Plan) -> Iterator[str]:
    for total in report.unchanged:
        yield f"    {total.weights:5d}  {format_bytes(total.bytes):>8}  {total.reason}"
        if not total.planned:
            names = [record.name for record in report.weights if record.reason == total.reason]
            more = [f"and {len(names) - NAMED_PER_REASON} more (--verbose)"] if len(names) > NAMED_PER_REASON else []
            yield from (f"                     {name}" for name in (*names[:NAMED_PER_REASON], *more))


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _shape(record: ConstantRecord) -> str:
    return "x".join(map(str, record.shape))


_NAME, _SHAPE = Column("weight", lambda record: record.name), Column("shape", _shape)
_PLANNED = (
    _NAME,
    _SHAPE,
    Column("to do", lambda weight: weight.method or ""),
    Column("now", lambda weight: format_bytes(weight.bytes_before), right=True),
    Column("then", lambda weight: f"{'' if weight.exact else '~'}{format_bytes(weight.bytes_after)}", right=True),
    Column("SNR dB", expected_decibels, right=True),
)
_STORED = (
    _NAME,
    _SHAPE,
    Column("stored as", lambda weight: weight.storage),
    Column("bits", lambda weight: f"{weight.bits_per_weight:.2f}", right=True),
    Column("bytes", lambda weight: format_bytes(weight.bytes), right=True),
)


def _fitted(columns: tuple[Column, ...], rows: Sequence[Any]) -> str:
    """A table with names shortened until it fits the terminal; pipes have no limit."""
    table = render(columns, rows)
    excess = max(map(len, table.splitlines())) - shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or excess <= 0:
        return table
    name, *others = columns
    names = [name.text(row) for row in rows]
    short = dict(zip(names, shorten_alike(names, max(map(len, names)) - excess), strict=True))
    return render((Column(name.heading, lambda row: short[name.text(row)]), *others), rows)
