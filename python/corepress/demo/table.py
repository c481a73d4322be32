"""The table at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..reporting.wording import format_bytes, format_count
from .variants import Original, Result

if TYPE_CHECKING:
    from rich.table import Table


def results_table(original: Original, results: Sequence[Result]) -> Table:
    """One row per variant, the original first."""
    from rich import box
    from rich.table import Table

    # Narrow enough for 80 columns, which is also what rich assumes of a pipe.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("compression", no_wrap=True)
    for heading in ("package", "ratio", "bits", "SNR dB", "worst", "time", "weights/s"):
        table.add_column(heading, justify="right", no_wrap=True)
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
