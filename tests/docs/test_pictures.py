"""The pictures of the documentation can be drawn, and show what corepress does now."""

from __future__ import annotations

import re
import runpy

import pytest
from pages import PAGES, ROOT

IMAGES = ROOT / "docs" / "images"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    script = runpy.run_path(str(ROOT / "docs" / "pictures.py"))
    return {path.name: path for path in script["draw_all"](tmp_path_factory.mktemp("images"))}


def figures(path) -> list[str]:
    """The texts of a picture that tell results: decibels, bits, times and ratios."""
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))
    return [text for text in texts if re.search(r"\d (dB|bits|m?s|times)|price", text)]


def test_there_are_those_that_pages_show(drawn):
    assert {path.name for path in IMAGES.iterdir()} == set(drawn)
    shown = {name for page in PAGES for name in re.findall(r"images/(\w+\.svg)", page.read_text(encoding="utf-8"))}
    assert shown == set(drawn)


def test_they_tell_the_same_results(drawn):
    told = {name: figures(path) for name, path in drawn.items()}
    assert told == {path.name: figures(path) for path in sorted(IMAGES.iterdir())}
    assert sum(map(len, told.values())) > 40


def test_they_are_small():
    assert all(path.stat().st_size < 100_000 for path in IMAGES.iterdir())
