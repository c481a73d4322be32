"""The tables at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..reporting.wording import format_bytes, format_count
from .reading import Readings
from .variants import Original, Result

if TYPE_CHECKING:
    from rich.table import Table


def results_table(original: Original, results: Sequence[Result]) -> Table:
    """One row per variant, the original first."""
    table = _table("UNet", "package", "ratio", "bits", "SNR dB", "worst", "time", "weights/s")
    table.add_row("float16", format_bytes(original.bytes), "1.00x", "16.00", "", "", "", "", style="dim")
    for result in results:
        table.add_row(
            result.label,
            format_bytes(result.bytes),
            f"{result.ratio:.2f}x",
            f"{result.bits_per_weight:.2f}",
            f"{result.snr_db:.1f}",
            f"{result.worst_snr_db:.1f}",
            f"{result.seconds:.2f} s",
            format_count(result.weights_per_second),
        )
    return table


def readings_table(readings: Readings) -> Table:
    """One row per version of the network that reads digits, the original first."""
    table = _table("digits", "samples", "package", "bits", "SNR dB", "right", "time", "a run")
    for row in (readings.original, *readings.versions):
        table.add_row(
            row.label,
            "" if row.seconds is None else "yes" if row.calibrated else "no",
            format_bytes(row.bytes),
            f"{row.bits_per_weight:.2f}",
            "" if row.snr_db is None else f"{row.snr_db:.1f}",
            f"{row.accuracy:.1f} %",
            "" if row.seconds is None else f"{row.seconds:.2f} s",
            f"{1000 * row.seconds_per_image:.1f} ms",
            style="dim" if row.seconds is None else None,
        )
    return table


def _table(first: str, *others: str) -> Table:
    """Narrow enough for 80 columns, which is also what rich assumes of a pipe."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
