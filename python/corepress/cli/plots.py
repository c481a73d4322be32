"""Plots of reports, plans and comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.comparison import DIVERGED
from ..reporting.charts import BLUE, FAINT, GRID, INK, ORANGE, ORIGINAL_COLOUR, new_figure, save_figure, style
from ..reporting.wording import format_bytes, shorten

if TYPE_CHECKING:
    from ..coreml import Comparison, Plan, Report
    from ..engine.records import ChangeRecord

LARGEST_SHOWN = 16
LONGEST_NAME = 48
LEAST_BITS, LEAST_DECIBELS = 0.25, 2.0  # less is no difference that a picture should make large


def plot_report(report: Report, path: Path) -> None:
    """Quality against size of every weight that was compressed, and the largest weights before and after."""
    measured = [record for record in report.weights if record.snr_db is not None and math.isfinite(record.snr_db)]
    before, after = format_bytes(report.bytes_before), format_bytes(report.bytes_after)
    figure = new_figure(f"{Path(report.destination).name}: {before} became {after}", (13, 6.2))
    quality, sizes = figure.subplots(1, 2, width_ratios=(1, 1.15))
    points = [(record.bits_per_weight, record.snr_db or 0.0, record.size) for record in measured]
    _draw_quality(quality, points)
    _draw_sizes(sizes, report.weights)
    save_figure(figure, path)


def plot_plan(plan: Plan, path: Path) -> None:
    """The largest weights before and after."""
    before, after = format_bytes(plan.bytes_before), format_bytes(plan.bytes_after)
    about = "" if plan.exact else "about "
    figure = new_figure(f"{Path(plan.source).name}: {before} would become {about}{after}", (10, 6.2))
    _draw_sizes(figure.subplots(), plan.weights)
    save_figure(figure, path)


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """How far apart the weights are: all in order, and the furthest by name."""
    measured = sorted(
        (weight.snr_db, weight.name)
        for weight in comparison.weights
        if weight.snr_db is not None and math.isfinite(weight.snr_db)
    )
    figure = new_figure(f"{Path(comparison.second).name} against {Path(comparison.first).name}", (13, 6.2))
    order, worst = figure.subplots(1, 2, width_ratios=(1, 1.15))
    ratios = [snr for snr, _ in measured]
    order.plot(range(1, len(ratios) + 1), ratios, "o-", color=BLUE, markersize=4, linewidth=1.5)
    style(order, f"{len(ratios)} weights that differ, in order" if ratios else "No weight differs")
    _label(order, "place in the order", "signal-to-noise ratio, dB")
    _widen(order.xaxis, 4)
    _widen(order.yaxis, LEAST_DECIBELS)
    shown = measured[:LARGEST_SHOWN]
    _draw_lowest(worst, shown)
    save_figure(figure, path)


def plot_layers(comparison: Comparison, path: Path) -> None:
    """How far apart the results of operations are: all in the order of computation, and the furthest by name."""
    title = f"{Path(comparison.second).name} against {Path(comparison.first).name}: results of operations"
    figure = new_figure(title, (13, 6.2))
    order, worst = figure.subplots(1, 2, width_ratios=(1.15, 1))
    points = [(place, each) for place, each in enumerate(comparison.layers, 1) if math.isfinite(each.snr_db)]
    order.plot([place for place, _ in points], [each.snr_db for _, each in points], "-", color=BLUE, linewidth=1.5)
    parted = comparison.first_diverging_layer
    order.axhline(DIVERGED, color=FAINT, linewidth=1, linestyle="--")
    for place, each in points:
        if each is parted:
            order.plot([place], [each.snr_db], "o", color=ORANGE, markersize=8)
            order.annotate(
                f"first below {DIVERGED:.0f} dB: {shorten(each.name, LONGEST_NAME)}",
                (place, each.snr_db),
                xytext=(8, 8),
                textcoords="offset points",
                fontsize=9,
                color=INK,
            )
    style(order, "In the order of computation" if points else "No result differs")
    _label(order, "operation", "signal-to-noise ratio, dB")
    _widen(order.xaxis, 4)
    _widen(order.yaxis, LEAST_DECIBELS)
    lowest = sorted((each.snr_db, each.name) for _, each in points)[:LARGEST_SHOWN]
    _draw_lowest(worst, lowest)
    save_figure(figure, path)


def _draw_lowest(axes: Any, shown: Sequence[tuple[float, str]]) -> None:
    # By number, as shortened names may be equal.
    bars = axes.barh(range(len(shown)), [max(snr, 0.0) for snr, _ in shown], color=ORANGE, height=0.62)
    axes.bar_label(bars, [f"{snr:.1f} dB" for snr, _ in shown], padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(shown)), [shorten(name, LONGEST_NAME) for _, name in shown])
    _style_bars(axes, "Lowest signal-to-noise ratios", max([snr for snr, _ in shown], default=1))


def _draw_quality(axes: Any, points: Sequence[tuple[float, float, int]]) -> None:
    """Against bits per weight where these differ, else against size."""
    bits, ratios, sizes = ([point[index] for point in points] for index in range(3))
    if points and max(bits) - min(bits) < LEAST_BITS:
        axes.scatter(sizes, ratios, s=60, color=BLUE, alpha=0.6, linewidths=0)
        axes.set_xscale("log")
        style(axes, f"Quality of each weight, at {sum(bits) / len(bits):.2f} bits")
        _label(axes, "number of elements", "signal-to-noise ratio, dB")
    else:
        areas = [20 + 220 * size / max(sizes) for size in sizes]
        axes.scatter(bits, ratios, s=areas, color=BLUE, alpha=0.45, linewidths=0)
        style(axes, "Quality against size of each weight (area: number of elements)")
        _label(axes, "bits per weight, palettes and scales included", "signal-to-noise ratio, dB")
    axes.margins(x=0.15, y=0.15)
    _widen(axes.yaxis, LEAST_DECIBELS)


def _widen(axis: Any, span: float) -> None:
    """Let an axis cover at least `span`, with full numbers at its ticks instead of an offset."""
    low, high = axis.get_view_interval()
    if high - low < span:
        middle = (low + high) / 2
        axis.set_view_interval(middle - span / 2, middle + span / 2, ignore=True)
    axis.get_major_formatter().set_useOffset(False)


def _draw_sizes(axes: Any, weights: Sequence[ChangeRecord]) -> None:
    """The weights that change, or all if none does."""
    changed = [each for each in weights if each.method is not None] or weights
    named = [(each.name, each.bytes_before, each.bytes_after) for each in changed]
    shown = sorted(named, key=lambda weight: -weight[1])[:LARGEST_SHOWN]
    places = range(len(shown))
    axes.barh(places, [before for _, before, _ in shown], color=ORIGINAL_COLOUR, height=0.72, label="before")
    axes.barh(places, [after for _, _, after in shown], color=BLUE, height=0.42, label="after")
    texts = [f"{format_bytes(before)} → {format_bytes(after)}" for _, before, after in shown]
    for place, (_, before, after), text in zip(places, shown, texts, strict=True):
        axes.annotate(
            text,
            (max(before, after), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    axes.set_yticks(places, [shorten(name, LONGEST_NAME) for name, _, _ in shown])
    _style_bars(
        axes, f"Largest weights ({len(shown)} of {len(changed)})", max((b for _, b, _ in shown), default=1), 1.4
    )
    if shown:
        axes.legend(loc="lower right", frameon=False, labelcolor=INK)


def _style_bars(axes: Any, title: str, longest: float, room: float = 1.2) -> None:
    axes.invert_yaxis()
    style(axes, title)
    axes.set_xlim(0, room * max(longest, 1e-9))
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8)


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x, color=FAINT)
    axes.set_ylabel(y, color=FAINT)
    axes.grid(color=GRID)
