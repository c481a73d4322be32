"""Draws the charts of docs/benchmarks.md out of the results kept beside this script.

    python bench/charts.py [--results bench/results] [--output docs/figures]

Colours are those of Okabe and Ito, which colour-blind people tell apart, and shapes differ too; the background is white
also where the page is dark, and paper shows the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS, THEIRS, FLOOR = "#0072b2", "#d55e00", "#7f7f7f"
MODEL_COLOURS = {"sd15": "#0072b2", "sdxl": "#e69f00", "sd35-large": "#009e73", "flux1-dev": "#cc79a7"}
MODEL_MARKERS = {"sd15": "o", "sdxl": "s", "sd35-large": "^", "flux1-dev": "D"}
MINUTE, HOUR = 60, 3600
Document = dict[str, Any]
