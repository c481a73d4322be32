"""Shared plot helpers; matplotlib is imported on first use."""

from __future__ import annotations

import html
import io
from pathlib import Path
from typing import Any

from ..extras import require
from ..outputs import write_output

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e8ee"
ORIGINAL_COLOUR, BLUE, ORANGE = "#a3adb8", "#2563eb", "#ea580c"
SUFFIXES = (".png", ".svg", ".html")
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ margin: 2em auto; max-width: {width}in; }} svg {{ width: 100%; height: auto; }}</style>
{svg}
</html>
"""


def new_figure(title: str, size: tuple[float, float]) -> Any:
    """An empty figure with a title, in inches."""
    require("plot", "matplotlib")
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12, wspace=0.06)
    figure = Figure(figsize=size, layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15, fontweight="bold", color=INK)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as its file's suffix says, one of `SUFFIXES`; an HTML page needs no other file."""
    suffix = path.suffix.lower()
    if suffix == ".png":
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=160)
        write_output(path, picture.getvalue())
        return
    svg = svg_of(figure)
    if suffix == ".html":
        title = html.escape(figure.get_suptitle())
        svg = _PAGE.format(title=title, width=figure.get_figwidth(), svg=element_of(svg))
    write_output(path, svg)


def svg_of(figure: Any) -> str:
    """A figure as an SVG document, the same for the same figure."""
    import matplotlib

    drawing = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "corepress", "svg.fonttype": "none"}):
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    return drawing.getvalue()


def element_of(svg: str) -> str:
    """The element of an SVG document, for a page."""
    return svg[svg.index("<svg") :]


def style(axes: Any, title: str) -> None:
    """Give axes a title and quiet lines."""
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=FAINT)
    axes.set_axisbelow(True)
