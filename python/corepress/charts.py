"""What all pictures have in common; matplotlib is loaded by the first."""

from __future__ import annotations

from typing import Any

INK, FAINT, GRID = "#1f2933", "#6b7785", "#e3e8ee"
ORIGINAL_COLOUR, BLUE, ORANGE = "#a3adb8", "#2563eb", "#ea580c"


def new_figure(title: str, size: tuple[float, float]) -> Any:
    """An empty figure with a title, in inches."""
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


def style(axes: Any, title: str) -> None:
    """Give axes a title and quiet lines."""
    axes.set_title(title, loc="left", fontsize=12, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=FAINT)
    axes.set_axisbelow(True)
