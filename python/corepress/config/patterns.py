"""Which of many patterns match a name: globs, regular expressions and PyTorch modules."""

from __future__ import annotations

import fnmatch
import re
import reprlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .bounded_matching import BoundedExpression

REGULAR, MODULE = "re:", "module:"
_LONGEST_GLOB, _LONGEST_REGULAR = 1_000, 10_000  # characters; some take time with the square of their length
# What conversion appends to the name of a module's weight.
_APPENDED = re.compile(r"(?:_weight)?(?:_(?:to_fp16|to_fp32|palettized|quantized|cast|\d+))*$")
_WILDCARD = re.compile(r"[*?\[]")
_Matches = Callable[[str], Any]  # true if it matches the whole name
_GLOB_PARTS = re.compile(r"\[[^]]*\]|[*?]|[^*?\[]+|\[")


class NamePatterns:
    """Patterns, numbered in their order.

    A pattern is a glob (``*``, ``?``, ``[...]``), or ``re:`` and a regular expression, which must match the whole name;
    or ``module:`` and the name of a PyTorch module, as it is, as a glob, or as ``re:`` and a regular expression. A
    module matches its weight: conversion joins a module's path by ``_``, may put the traced model's own name before it,
    and appends ``_weight``, ``_to_fp16`` and the like. A module pattern also matches its exact name.

    Parameters
    ----------
    patterns : sequence of str
        The patterns.

    Raises
    ------
    ValueError
        If a pattern is not a valid regular expression, refers to its groups, has atomic groups or possessive
        quantifiers, nests more than 50 groups, or is longer than 1,000 characters (a glob) or 10,000.

    Notes
    -----
    No pattern takes long, not even one like ``(a+)+b``: see `corepress.config.bounded_matching`. The time of globs
    grows with the length of the name times that of the pattern.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._open: list[tuple[int, _Matches]] = []
        self._of_modules: list[tuple[int, _Matches]] = []
        # Recipes name hundreds of modules or weights, so these are looked up instead of tried one by one.
        self._modules: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        for number, pattern in enumerate(patterns):
            name = pattern.removeprefix(MODULE)
            if name.startswith(REGULAR):
                _require_length(name, _LONGEST_REGULAR)
                self._open.append((number, _regular(name[len(REGULAR) :])))
            elif is_open(name):
                _require_length(name, _LONGEST_GLOB)
                self._open.append((number, _expression(fnmatch.translate(name)).fullmatch))
            else:
                self._names.setdefault(name, []).append(number)
            if name == pattern:
                continue
            if is_open(name):
                self._of_modules.append((number, _module_pattern(name)))
            else:
                self._modules.setdefault(_joined(name.removesuffix(".weight")), []).append(number)

    def matching(self, name: str) -> Iterator[int]:
        """The numbers of the patterns that match a name, in no order; a number may come twice."""
        yield from (number for number, matches in self._open if matches(name))
        yield from self._names.get(name, ())
        stem = _APPENDED.sub("", name) if self._modules or self._of_modules else ""
        yield from (number for number, matches in self._of_modules if matches(stem) or matches(f"{stem}_weight"))
        while stem:
            yield from self._modules.get(stem, ())
            stem = stem.partition("_")[2]


def _require_length(pattern: str, longest: int) -> None:
    if len(pattern) > longest:
        raise ValueError(f"a pattern has at most {longest} characters, not {len(pattern)}: {reprlib.repr(pattern)}")


def is_open(pattern: str) -> bool:
    """Whether a pattern is a regular expression or a glob that can match several names."""
    return pattern.startswith(REGULAR) or bool(_WILDCARD.search(pattern))


def readings(pattern: str) -> Iterator[str]:
    """Other readings of a pattern that matches nothing, the closest first.

    A dotted pattern can be the name of a PyTorch module, a module that contains others, or either in a model that was
    converted without its outermost module, which Hugging Face calls ``model``. A name without dots and wildcards can be
    a module of the outermost level.
    """
    name = pattern.removeprefix(MODULE)
    if name == pattern and is_open(name) and not _is_dotted(name):
        return
    prefix, path = (REGULAR, name[len(REGULAR) :]) if name.startswith(REGULAR) else ("", name)
    inner = re.sub(r"^model\\?\.", "", path)
    for each in dict.fromkeys((path, inner)):
        if f"{MODULE}{prefix}{each}" != pattern:
            yield f"{MODULE}{prefix}{each}"
        if name != pattern or _is_dotted(name):
            yield f"{MODULE}{prefix}(?:{each})\\..*" if prefix else f"{MODULE}{each}.*"


def _is_dotted(name: str) -> bool:
    return (r"\." if name.startswith(REGULAR) else ".") in name


def _joined(path: str) -> str:
    """A module's path as written by conversion."""
    return re.sub(r"\W", "_", path)


def _module_pattern(pattern: str) -> _Matches:
    """A matcher for the joined paths of the modules, after an optional name of the traced model."""
    if pattern.startswith(REGULAR):
        joined = pattern[len(REGULAR) :].replace(r"\.", "_").replace("[.]", "_")
        return _regular(f"(?:.*_)?(?:{joined})")
    parts = (part if is_open(part) else _joined(part) for part in _GLOB_PARTS.findall(pattern))
    return _expression(f"(?:.*_)?(?:{fnmatch.translate(''.join(parts))})").fullmatch


def _regular(pattern: str) -> _Matches:
    return BoundedExpression(_expression(pattern)).matches


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # [[:alpha:]] is no class of letters in Python
            return re.compile(pattern)
    except Exception as error:  # also OverflowError, RecursionError and MemoryError
        problem = str(error) or type(error).__name__
        raise ValueError(f"not a regular expression ({problem})") from error
