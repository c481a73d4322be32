"""Which of many patterns match a name: globs, regular expressions and PyTorch modules."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

REGULAR, MODULE = "re:", "module:"
# What conversion appends to the name of a module's weight.
_APPENDED = re.compile(r"(?:_weight)?(?:_(?:to_fp16|to_fp32|palettized|quantized|cast|\d+))*$")
_WILDCARD = re.compile(r"[*?\[]")
_GLOB_PARTS = re.compile(r"\[[^]]*\]|[*?]|[^*?\[]+|\[")


class NamePatterns:
    """Patterns, numbered in their order.

    A pattern is a glob (``*``, ``?``, ``[...]``), or ``re:`` and a regular expression, which must match the whole name;
    or ``module:`` and the name of a PyTorch module, as it is, as a glob, or as ``re:`` and a regular expression. A
    module matches its weight: conversion joins a module's path by ``_``, may put the traced model's own name before it,
    and appends ``_weight``, ``_to_fp16`` and the like. A module's pattern also matches the very name.

    Parameters
    ----------
    patterns : sequence of str
        The patterns.

    Raises
    ------
    ValueError
        For what is not a regular expression.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        self._of_modules: list[tuple[int, re.Pattern[str]]] = []
        # Recipes name hundreds of modules, so these are looked up instead of tried one by one.
        self._modules: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        for number, pattern in enumerate(patterns):
            name = pattern.removeprefix(MODULE)
            if name == pattern or is_open(name):
                self._expressions.append((number, _expression(name)))
                if name != pattern:
                    self._of_modules.append((number, _module_expression(name)))
            else:
                self._names.setdefault(name, []).append(number)
                self._modules.setdefault(_joined(name.removesuffix(".weight")), []).append(number)

    def matching(self, name: str) -> Iterator[int]:
        """The numbers of the patterns that match a name, in no order; a number may come twice."""
        yield from (number for number, expression in self._expressions if expression.fullmatch(name))
        yield from self._names.get(name, ())
        stem = _APPENDED.sub("", name) if self._modules or self._of_modules else ""
        for number, expression in self._of_modules:
            if expression.fullmatch(stem) or expression.fullmatch(f"{stem}_weight"):
                yield number
        while stem:
            yield from self._modules.get(stem, ())
            stem = stem.partition("_")[2]


def is_open(pattern: str) -> bool:
    """Whether a pattern is a regular expression or a glob that can match several names."""
    return pattern.startswith(REGULAR) or bool(_WILDCARD.search(pattern))


def readings(pattern: str) -> Iterator[str]:
    """What else a pattern that matches nothing can stand for, the closest first.

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
    """A module's path as conversion writes it."""
    return re.sub(r"\W", "_", path)


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern[len(REGULAR) :] if pattern.startswith(REGULAR) else fnmatch.translate(pattern))
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error


def _module_expression(pattern: str) -> re.Pattern[str]:
    """What matches the joined paths of the modules, after a name of the traced model's own."""
    if pattern.startswith(REGULAR):
        joined = pattern.replace(r"\.", "_").replace("[.]", "_")
    else:
        parts = (part if is_open(part) else _joined(part) for part in _GLOB_PARTS.findall(pattern))
        joined = REGULAR + fnmatch.translate("".join(parts))
    return _expression(f"{REGULAR}(?:.*_)?(?:{joined[len(REGULAR) :]})")
