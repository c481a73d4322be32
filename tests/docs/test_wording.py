"""Pages, docstrings, help texts and messages avoid phrases that read as if translated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from code_blocks import PAGES, ROOT

SOURCES = sorted((ROOT / "python" / "corepress").rglob("*.py"))

# What to avoid, and what to write instead. A space also matches the end of a line.
AVOIDED = {
    r"(?:stays?|kept|keeps?|left|leaves?)(?: \w+){0,2} as (?:it|they) (?:is|was|are|were)": "is left unchanged",
    r"as (?:it|they) (?:is|was|are|were) and (?:is|are) named": "is left unchanged and listed in the report",
    r"(?:is|are) named in the report": "is listed in the report",
    r"stands? (?:in|at|for|beside|once|alone|nowhere|there|here)": "is (stored) in; represents; is next to",
    r"beside": "next to; in addition to; compared with",
    r"of (?:its|their) own(?! \w)": "its own; separate",
    r"by (?:itself|themselves)": "separately; automatically",
    r"so many(?! that)": "this many; a given number of",
    r"tells? (?:how|what|which|where|whether|why|of|the|beforehand)": "shows; reports; returns",
    r"(?:report|plan|line|message|run`?) tells?": "shows; reports; prints",
    r"told": "called; shown; given",
    r"(?:rule|pattern|config|glob|selector)s? (?:that )?means?": "matches; selects",
    r"is meant by": "is matched by; is selected by",
    r"means nothing": "matches nothing; has no meaning",
    r"nothing to see|hardly ever a visible": "no visible loss",
    r"as asked": "as requested",
    r"in the place of": "in place of",
    r"inside of": "inside",
    r"passed over": "skipped",
    r"commonest": "most common",
    r"no like|the like object|as the like": "no equivalent; the same kind",
    r"how far (?:[\w']+ ){1,4}(?:is|are) apart": "how far apart … are",
    r"do what `\w+` does": "like `…`",
    r"say function, value": "name the function, the value and the rule it breaks",
    r"all else": "everything else",
}


def _prose_of(page: Path) -> Iterator[tuple[int, str]]:
    """A page without its code blocks, whose lines keep their numbers."""
    text = page.read_text(encoding="utf-8")
    yield 1, re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def _strings_of(source: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module: docstrings, help texts and messages."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def _found(place: str, texts: Iterator[tuple[int, str]]) -> list[str]:
    return [
        f"{place}:{line + text.count(chr(10), 0, match.start())}: {' '.join(match[0].split())!r}; write: {better}"
        for line, text in texts
        for avoided, better in AVOIDED.items()
        for match in re.finditer(rf"\b(?:{avoided})\b".replace(" ", r"\s+"), text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("name", [page.relative_to(ROOT).as_posix() for page in (*PAGES, ROOT / "CONTRIBUTING.md")])
def test_pages_read_well(name):
    found = _found(name, _prose_of(ROOT / name))
    assert not found, "\n".join(found)


def test_strings_of_the_package_read_well():
    found = [text for source in SOURCES for text in _found(source.relative_to(ROOT).as_posix(), _strings_of(source))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "The weight stays as it is and is named in the report.",
        "One that the weight\nleaves as it was.",
        "A rule that means nothing in your package.",
        "`--dry-run` tells beforehand what it will weigh.",
        "formats of their own",
        "Where blobs stand in the file.",
        "how far two packages are apart",
    ],
)
def test_what_is_avoided_is_found(text):
    assert _found("page.md", iter([(1, text)]))


@pytest.mark.parametrize(
    "text",
    [
        "hard to tell from the original",
        "A config is accepted as it is.",
        "the number of its own layers",
        "If there are so many that the file must be hostile.",
    ],
)
def test_idioms_are_not(text):
    assert not _found("page.md", iter([(1, text)]))
