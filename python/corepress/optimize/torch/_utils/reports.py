"""Tables of figures."""

from __future__ import annotations

from collections import UserDict
from typing import Any


class Report(UserDict):  # type: ignore[type-arg]
    """A row of figures for each compressed weight, which prints as a table."""

    def __repr__(self) -> str:
        if not self.data:
            return ""
        columns = list(next(iter(self.data.values())))
        rows = [
            ["name", *columns],
            *([str(name), *(_text(row[column]) for column in columns)] for name, row in self.data.items()),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        return "\n".join(" | ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _text(value: Any) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)
