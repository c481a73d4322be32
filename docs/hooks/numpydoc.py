"""Turns what numpydoc writes its own way into Markdown, before docstrings are rendered."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

REFERENCE = Path(__file__).parents[1] / "reference"
_CHOICES = re.compile(r"^(\s*[\w, ]+ : )\{(.+)\}(?=,|$)", re.MULTILINE)
_PATH = re.compile(r"^(\s*[\w, ]+ : )path-like", re.MULTILINE)
_TOGETHER = re.compile(r"^(\s*\w+(?:, \w+)+)$", re.MULTILINE)  # parameters that another docstring tells of
_LITERAL = re.compile(r"^(.*\S)?::$", re.MULTILINE)
_NAME = re.compile(r"(?<![`\w])`([\w.]+)`(?!`)")


@cache
def documented() -> dict[str, str]:
    """The objects that have a place on a page of the reference, by what docstrings call them."""
    paths = [path for page in REFERENCE.glob("*.md") for path in re.findall(r"^::: (\S+)", page.read_text(), re.M)]
    classes = {path.rpartition(".")[2]: path for path in paths if path.rpartition(".")[2][:1].isupper()}
    return {path: path for path in paths} | classes | {f"corepress.{name}": path for name, path in classes.items()}


class Numpydoc(griffe.Extension):
    """Choices as a list of words, literal blocks as code, and names as links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of every object."""
        if obj.docstring is not None:
            obj.docstring.value = _rewritten(obj.docstring.value)


def _rewritten(text: str) -> str:
    text = _CHOICES.sub(lambda match: match[1] + _in_words(match[2].split(", ")), text)
    text = _PATH.sub(r"\1str | os.PathLike", text)
    text = _TOGETHER.sub(r"\1 : as there", text)
    text = _LITERAL.sub(lambda match: f"{match[1]}:" if match[1] else "", text)
    return _NAME.sub(lambda match: _link(match[1]) or match[0], text)


def _in_words(choices: list[str]) -> str:
    return " | ".join(choices)


def _link(name: str) -> str | None:
    path = documented().get(name)
    return None if path is None else f"[`{name}`][{path}]"
