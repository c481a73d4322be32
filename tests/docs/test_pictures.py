"""The pictures of the documentation can be drawn, and show what corepress does now."""

from __future__ import annotations

import re
import runpy

from code_blocks import PAGES, ROOT

# Those of measurements are drawn by bench/charts.py.
IMAGES = [path for path in sorted((ROOT / "docs" / "images").iterdir()) if not path.name.startswith("benchmark-")]


def figures(path) -> list[str]:
    """The texts of a picture that tell results: decibels, bits, times and ratios."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    return [text for text in texts if re.search(r"\d (dB|bits|m?s|times)|price", text)]


def test_the_script_draws_what_pages_show(tmp_path):
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    drawn = {path.name: path for path in script["draw_all"](tmp_path)}
    assert {path.name for path in IMAGES} == set(drawn)
    shown = {name for page in PAGES for name in re.findall(r"images/(\w+\.svg)", page.read_text(encoding="utf-8"))}
    assert shown == set(drawn)

    told = {name: figures(path) for name, path in drawn.items()}
    assert sum(map(len, told.values())) > 40
    assert told == {path.name: figures(path) for path in IMAGES}, "run docs/pictures.py, and look at what changed"


def test_pictures_are_small():
    assert all(path.stat().st_size < 100_000 for path in IMAGES)
