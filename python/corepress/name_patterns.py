"""Which of many patterns mean a name: globs, regular expressions and PyTorch modules."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence

REGULAR, MODULE = "re:", "module:"
# What conversion appends to the name of a module's weight.
_APPENDED = re.compile(r"(?:_weight)?(?:_(?:to_fp16|to_fp32|palettized|quantized|cast|\d+))*$")


class NamePatterns:
    """Patterns, numbered in their order.

    A pattern is a glob (``*``, ``?``, ``[...]``), or ``re:`` and a regular expression, which must match the whole name;
    or ``module:`` and the name of a PyTorch module, which means its weight: conversion joins a module's path by ``_``,
    may put the traced model's own name before it, and appends ``_weight``, ``_to_fp16`` and the like. A module's
    pattern also means the very name.

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
        # Recipes name hundreds of modules, so these are looked up instead of tried one by one.
        self._modules: dict[str, list[int]] = {}
        self._names: dict[str, list[int]] = {}
        for number, pattern in enumerate(patterns):
            if pattern.startswith(MODULE):
                name = pattern[len(MODULE) :]
                self._names.setdefault(name, []).append(number)
                self._modules.setdefault(re.sub(r"\W", "_", name.removesuffix(".weight")), []).append(number)
            else:
                self._expressions.append((number, _expression(pattern)))

    def matching(self, name: str) -> Iterator[int]:
        """The numbers of the patterns that mean a name, in no order; a number may come twice."""
        yield from (number for number, expression in self._expressions if expression.fullmatch(name))
        yield from self._names.get(name, ())
        stem = _APPENDED.sub("", name) if self._modules else ""
        while stem:
            yield from self._modules.get(stem, ())
            stem = stem.partition("_")[2]


def _expression(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern[len(REGULAR) :] if pattern.startswith(REGULAR) else fnmatch.translate(pattern))
    except re.error as error:
        raise ValueError(f"not a regular expression ({error})") from error
