"""Plain-text tables."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column: its heading, how to get its text from a row, and its alignment."""

    heading: str
    text: Callable[[Any], str]
    right: bool = False


def render(columns: tuple[Column, ...], rows: Iterable[Any]) -> str:
    """A table as text without colours, as wide as its content."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.heading, justify="right" if column.right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns))
    buffer = io.StringIO()
    console = Console(file=buffer, width=100_000, color_system=None, force_terminal=False)
    console.print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def format_bytes(count: int) -> str:
    """Three figures and a unit, for example ``1.23 MB``."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}" if size < 100 else f"{size:.0f} {units[0]}"
