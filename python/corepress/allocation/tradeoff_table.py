"""What recipes cost and keep, as a table: text, Markdown, JSON, a page and a picture."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..outputs import write_output
from ..paths import user_path
from ..reporting.charts import (
    BLUE,
    FAINT,
    GRID,
    INK,
    ORANGE,
    ORIGINAL_COLOUR,
    element_of,
    new_figure,
    save_figure,
    style,
    svg_of,
)
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from ..reporting.wording import format_decibels

SUFFIXES = (".md", ".json", ".html", ".png", ".svg")
_LINES = {  # how the plot shows a series: colour, line, marker
    ("uniform", False): (FAINT, "--", "o"),
    ("allocated", False): (BLUE, "--", "o"),
    ("uniform", True): (FAINT, "-", "s"),
    ("allocated", True): (ORANGE, "-", "s"),
}


@dataclass(frozen=True)
class TradeoffRow:
    """What one recipe costs and keeps.

    Attributes
    ----------
    name : str
        The recipe in words.
    kind : {"original", "uniform", "allocated", "recipe"}
        The uncompressed model; the same steps for all weights; steps chosen for each weight; or a recipe of yours.
    calibrated : bool
        Whether it was made with calibration: error feedback, and an allocation by output errors.
    bytes : int
        Bytes of all files of the package.
    download_bytes : int
        The same, each file deflated, as in an app's archive: what zeros and clustered values save there.
    bits_per_weight : float
        Stored bits per weight over all constants, tables, scales and masks included.
    snr_db : float
        Signal-to-noise ratio of the outputs on the test samples, in dB, the lowest of any output; infinite for equal
        outputs.
    score : float or None
        Value of the metric that was asked for; higher is better.
    seconds : float
        Duration of compressing.
    """

    name: str
    kind: str
    calibrated: bool
    bytes: int
    download_bytes: int
    bits_per_weight: float
    snr_db: float
    score: float | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; equal outputs have ``snr_db`` None and ``lossless`` True."""
        lossless = self.snr_db == math.inf
        score = self.score if self.score is not None and math.isfinite(self.score) else None
        return dataclasses.asdict(self) | {
            "snr_db": None if lossless else self.snr_db,
            "score": score,
            "lossless": lossless,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TradeoffRow:
        """The reverse of `to_dict`."""
        given = {each.name: values[each.name] for each in dataclasses.fields(cls)}
        return cls(**{**given, "snr_db": math.inf if values["lossless"] else given["snr_db"]})


@dataclass(frozen=True, repr=False)
class Tradeoff:
    """What recipes for a model cost and keep.

    Attributes
    ----------
    source : str
        The package.
    rows : tuple of TradeoffRow
        The original, then one row for each recipe.
    metric : str or None
        Name of the metric of `TradeoffRow.score`.
    samples, test_samples : int
        Number of samples that calibration saw, and on which rows were measured.
    notes : tuple of str
        What a reader should know.
    """

    source: str
    rows: tuple[TradeoffRow, ...]
    metric: str | None
    samples: int
    test_samples: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return dataclasses.asdict(self) | {"rows": [row.to_dict() for row in self.rows], "notes": list(self.notes)}

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Tradeoff:
        """Read a table that `save` wrote to a ``.json`` file.

        Raises
        ------
        FormatError
            If the file holds no table.
        """
        target = user_path(path)
        try:
            values = json.loads(target.read_text(encoding="utf-8"))
            rows = tuple(TradeoffRow.from_dict(row) for row in values["rows"])
            known = {each.name: values[each.name] for each in dataclasses.fields(cls)}
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"{target} is not a table that tradeoff saved ({error!r})") from error
        return cls(**{**known, "rows": rows, "notes": tuple(values["notes"])})

    @property
    def _columns(self) -> tuple[Column, ...]:
        original = self.rows[0].bytes
        columns = (
            Column("recipe", lambda row: row.name),
            Column("samples", lambda row: "yes" if row.calibrated else "no"),
            Column("bits", lambda row: f"{row.bits_per_weight:.2f}", right=True),
            Column("size", lambda row: format_bytes(row.bytes), right=True),
            Column("share", lambda row: f"{100 * row.bytes / original:.1f} %", right=True),
            Column("download", lambda row: format_bytes(row.download_bytes), right=True),
            Column("output SNR", lambda row: format_decibels(row.snr_db), right=True),
        )
        if self.metric is None:
            return columns
        return (
            *columns,
            Column(self._metric_name, lambda row: "-" if row.score is None else f"{row.score:.4g}", right=True),
        )

    @property
    def _metric_name(self) -> str:
        """Of a function in a file only its own name."""
        return (self.metric or "").rpartition(":")[2]

    def to_markdown(self) -> str:
        """As a Markdown table, with a heading and notes."""
        lines = [
            f"# {self._title}",
            "",
            "| " + " | ".join(column.heading for column in self._columns) + " |",
            "|" + "|".join("--:" if column.right else "---" for column in self._columns) + "|",
            *("| " + " | ".join(column.text(row) for column in self._columns) + " |" for row in self.rows),
            "",
            *(f"- {note}" for note in self._remarks),
        ]
        return "\n".join(lines) + "\n"

    @property
    def _title(self) -> str:
        return f"{Path(self.source).name}: size against what the outputs keep"

    @property
    def _remarks(self) -> tuple[str, ...]:
        measured = f"Measured on {self.test_samples} samples"
        apart = f", which calibration did not see; it saw {self.samples}" if self.samples else ""
        return (f"{measured}{apart}.", *self.notes)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw output quality against size, and the metric if there is one, to a .png, .svg or .html file."""
        save_figure(self._figure(), user_path(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a file of the kind that its suffix names, one of `SUFFIXES`.

        Raises
        ------
        ValueError
            If the suffix is another one.
        """
        target = user_path(path)
        suffix = target.suffix.lower()
        if suffix == ".md":
            write_output(target, self.to_markdown())
        elif suffix == ".json":
            write_output(target, self.to_json() + "\n")
        elif suffix == ".html":
            write_output(target, self._page())
        elif suffix in SUFFIXES:
            self.plot(target)
        else:
            raise ValueError(f"tradeoff: {target.name} must end with {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}")

    def _figure(self) -> Any:
        panels = 1 if self.metric is None else 2
        figure = new_figure(self._title, (7.5 * panels, 6.2))
        axes = figure.subplots(1, panels, squeeze=False)[0]
        self._draw(axes[0], "snr_db", "signal-to-noise ratio of the outputs, dB")
        if panels == 2:
            self._draw(axes[1], "score", self._metric_name)
            axes[1].axhline(self.rows[0].score, color=ORIGINAL_COLOUR, linewidth=1, linestyle=":")
        axes[0].legend(frameon=False, labelcolor=INK, loc="lower right")
        return figure

    def _draw(self, axes: Any, value: str, label: str) -> None:
        for (kind, calibrated), (colour, line, marker) in _LINES.items():
            points = self._points(kind, calibrated, value)
            if points:
                chosen = "uniform" if kind == "uniform" else "chosen for each weight"
                name = f"{chosen}, {'with' if calibrated else 'without'} samples"
                sizes, values = zip(*points, strict=True)
                axes.plot(sizes, values, line, marker=marker, color=colour, label=name, linewidth=1.6, markersize=5)
        others = [point for each in (False, True) for point in self._points("recipe", each, value)]
        if others:
            sizes, values = zip(*others, strict=True)
            axes.plot(sizes, values, "D", color=INK, label="recipes", markersize=5)
        style(axes, "")
        axes.set_xlabel("size, MB", color=FAINT)
        axes.set_ylabel(label, color=FAINT)
        axes.grid(color=GRID)

    def _points(self, kind: str, calibrated: bool, value: str) -> list[tuple[float, float]]:
        chosen = (row for row in self.rows if row.kind == kind and row.calibrated == calibrated)
        pairs = ((row.bytes / 1e6, getattr(row, value)) for row in chosen)
        return sorted((size, each) for size, each in pairs if each is not None and math.isfinite(each))

    def _page(self) -> str:
        """A page that needs no other file."""
        svg = element_of(svg_of(self._figure()))
        heads = "".join(f"<th>{html.escape(column.heading)}</th>" for column in self._columns)
        rows = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(column.text(row))}</td>" for column in self._columns) + "</tr>"
            for row in self.rows
        )
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in self._remarks)
        return _PAGE.format(title=html.escape(self._title), svg=svg, heads=heads, rows=rows, notes=notes)

    def __str__(self) -> str:
        return "\n".join((render(self._columns, self.rows), *self._remarks))

    def __repr__(self) -> str:
        return f"<Tradeoff of {self.source}: {len(self.rows)} rows>"


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 2em auto; max-width: 70em; font-family: system-ui, sans-serif; color: #1f2933; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.3em 0.9em; text-align: right; border-bottom: 1px solid #e3e8ee; }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
<h1>{title}</h1>
{svg}
<table>
<tr>{heads}</tr>
{rows}
</table>
<ul>{notes}</ul>
</html>
"""
