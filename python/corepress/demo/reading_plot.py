"""The picture of the network that reads digits: what each version reads right, and ten digits with its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..reporting.charts import BLUE, INK, ORANGE, ORIGINAL_COLOUR, new_figure, save_figure, style
from ..reporting.wording import format_bytes
from .digits import load_digits
from .reading import ORIGINAL, Reading, Readings

WRONG = "#c02626"
LABELS = 5.2  # width of what stands left of the digits, in digits


def draw_readings(readings: Readings, destination: Path) -> None:
    """Draw accuracy with sizes as bars, and the answers of the smallest packages, into a picture."""
    save_figure(readings_figure(readings), destination)


def readings_figure(readings: Readings) -> Any:
    """The same as a figure."""
    figure = new_figure("A network that reads digits, compressed", (6.8, 7.2))
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.9, 1))
    _draw_bars(upper.subplots(), readings)
    _draw_answers(lower.subplots(), readings)
    return figure


def _draw_bars(axes: Any, readings: Readings) -> None:
    rows = [readings.original, *readings.versions]
    for place, row in enumerate(rows):
        axes.barh(place, row.accuracy, 0.7, color=_colour(row))
        axes.text(row.accuracy + 1.5, place, f"{row.accuracy:.1f} %", va="center", fontsize=14, color=INK)
    axes.set_yticks(range(len(rows)), [f"{row.label}, {format_bytes(row.bytes)}" for row in rows])
    axes.invert_yaxis()
    style(axes, f"Read right, of {readings.test_images} handwritten digits")
    axes.title.set_fontsize(14)
    axes.set_xlim(0, 122)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=14)
    kinds = {
        "as trained": ORIGINAL_COLOUR,
        "without samples": ORANGE,
        f"with {readings.samples} samples": BLUE,
    }
    for label, colour in kinds.items():
        axes.barh([0], [0], color=colour, label=label)
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.2, 0), "ncols": 3}
    axes.legend(
        **below, frameon=False, labelcolor=INK, fontsize=14, columnspacing=1.0, handlelength=1.0, handletextpad=0.5
    )


def _colour(row: Reading) -> str:
    return ORIGINAL_COLOUR if row.package == ORIGINAL else BLUE if row.calibrated else ORANGE


def _draw_answers(axes: Any, readings: Readings) -> None:
    """One image of each digit, with the answers of the smallest package of either kind below it."""
    digits = load_digits()
    for column, index in enumerate(readings.shown):
        image = digits.tests[index, 0].astype("float32")
        extent = (column + 0.06, column + 0.94, 0.06, 0.94)
        axes.imshow(image, cmap="gray_r", extent=extent, interpolation="nearest")
    for row, version in enumerate((_smallest(readings, False), _smallest(readings, True))):
        height = -0.5 - 0.95 * row
        samples = "with samples" if version.calibrated else "no samples"
        axes.text(-0.3, height, f"{version.label}, {samples}", ha="right", va="center", fontsize=14, color=INK)
        for column, answer in enumerate(readings.answers[version.package]):
            right = answer == digits.labels[readings.shown[column]]
            colour, weight = (INK, "bold") if right else (WRONG, "normal")
            options = {"ha": "center", "va": "center", "fontsize": 18}
            axes.text(column + 0.5, height, str(answer), color=colour, fontweight=weight, **options)
    axes.text(-0.3, 0.5, "digits", ha="right", va="center", fontsize=14, color=INK)
    axes.set_xlim(-LABELS, 10)
    axes.set_ylim(-2, 1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    style(axes, "One of each, and what the smallest networks take it for")
    axes.title.set_fontsize(14)


def _smallest(readings: Readings, calibrated: bool) -> Reading:
    return min((row for row in readings.versions if row.calibrated == calibrated), key=lambda row: row.bytes)
