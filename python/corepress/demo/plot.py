"""The plot of the demo: quality against bits, and package sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..reporting.charts import FAINT, GRID, INK, ORIGINAL_COLOUR, new_figure, save_figure, style
from .variants import Original, Result

COLOURS = {"palette": "#2563eb", "grouped palette": "#0d9488", "integer": "#ea580c", "pruned": "#9333ea"}
LEGEND = {
    "palette": "palette, one per weight",
    "grouped palette": "palette per 16 channels",
    "integer": "integer with scales",
    "pruned": "pruned, float16",
}


def draw_plot(original: Original, results: Sequence[Result], destination: Path) -> None:
    """Draw SNR against bits per weight, and package sizes as bars, into a PNG file."""
    figure = new_figure("What compression keeps of a small diffusion UNet", (12.5, 5.6))
    quality, sizes = figure.subplots(1, 2, width_ratios=(1.25, 1))
    _draw_quality(quality, results)
    _draw_sizes(sizes, original, results)
    save_figure(figure, destination)


def _draw_quality(axes: Any, results: Sequence[Result]) -> None:
    for family, colour in COLOURS.items():
        points = sorted((result.bits_per_weight, result.snr_db) for result in results if result.family == family)
        line = "o-" if len(points) > 1 else "o"
        axes.plot(*zip(*points, strict=True), line, color=colour, markersize=9, linewidth=2, label=LEGEND[family])
    for result in results:
        left = result.family == "palette"
        axes.annotate(
            result.label,
            (result.bits_per_weight, result.snr_db),
            xytext=(-10, 6) if left else (10, -5),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=10,
            color=COLOURS[result.family],
        )
    style(axes, "Quality against size")
    axes.set_xlabel("bits per weight", color=FAINT)
    axes.set_ylabel("signal-to-noise ratio of the weights, dB", color=FAINT)
    axes.grid(color=GRID)
    axes.set_xlim(0, max(result.bits_per_weight for result in results) + 2.5)
    axes.set_ylim(0, max(result.snr_db for result in results) + 6)
    axes.legend(loc="upper left", frameon=False, labelcolor=INK)


def _draw_sizes(axes: Any, original: Original, results: Sequence[Result]) -> None:
    by_size = sorted(results, key=lambda result: -result.bytes)
    labels = ["float16", *(result.label for result in by_size)]
    megabytes = [original.bytes / 1e6, *(result.bytes / 1e6 for result in by_size)]
    colours = [ORIGINAL_COLOUR, *(COLOURS[result.family] for result in by_size)]
    bars = axes.barh(labels, megabytes, color=colours, height=0.62)
    axes.bar_label(bars, [f"{value:.1f} MB" for value in megabytes], padding=5, fontsize=10, color=INK)
    axes.invert_yaxis()
    style(axes, "Package size")
    axes.set_xlim(0, 1.18 * megabytes[0])
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
