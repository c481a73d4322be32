"""Matching of regular expressions in bounded time, in any thread.

Python tries one path through an expression after another, and expressions like ``(a+)+b`` have more paths than anybody
can wait for; only a signal interrupts it, and signals reach only the main thread. Here all paths are followed at once,
by the set of places in the name where the preceding part of the expression can end. So every node is tried at every
place only a few times, however many paths lead there. Which of them Python would prefer does not matter for whether it
matches a whole name; only atomic groups and references to groups depend on the path, and are refused.

The tree of an expression is that of Python's own parser, and Python matches single characters. Python also matches
expressions with few paths, since that is faster.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

_NAMES = ("re._parser", "re._compiler") if sys.version_info >= (3, 11) else ("sre_parse", "sre_compile")
_parser, _compiler = map(importlib.import_module, _NAMES)
_DEEPEST = 50  # groups within groups
_QUICK = 2_000_000  # ways that Python tries in some tenths of a second
_REPEATS, _LOOKS = ("MAX_REPEAT", "MIN_REPEAT"), ("ASSERT", "ASSERT_NOT")
_LEAVES = ("LITERAL", "NOT_LITERAL", "ANY", "IN", "AT")


class BoundedExpression:
    """An expression that matches whole names, or does not, in a time that grows with their length and its own.

    Parameters
    ----------
    expression : re.Pattern
        The expression.

    Raises
    ------
    ValueError
        If it has references to groups, atomic groups or possessive quantifiers, or is nested too deeply.
    """

    def __init__(self, expression: re.Pattern[str]) -> None:
        self._expression = expression
        self._tree = _parser.parse(expression.pattern, expression.flags)
        self._choices = _choices(self._tree, 0)
        self._leaves: dict[tuple[int, int, int], re.Pattern[str]] = {}

    def matches(self, name: str) -> bool:
        """Whether it matches a whole name."""
        if self._choices is not None and math.comb(len(name) + self._choices, self._choices) <= _QUICK:
            return self._expression.fullmatch(name) is not None
        return len(name) in _Search(self, name).ends(self._tree, {0}, 0, 0)

    def leaf(self, node: Any, on: int, off: int) -> re.Pattern[str]:
        """The matcher of a node for one character or position; `on` and `off` are flags inside a group."""
        key = (id(node), on, off)
        if key not in self._leaves:
            state, sequence = self._tree.state, _parser.SubPattern
            group = (_parser.SUBPATTERN, (None, on, off, sequence(state, [node])))
            self._leaves[key] = _compiler.compile(sequence(state, [group]))
        return self._leaves[key]


class _Search:
    """Finds where parts of an expression can end in a name."""

    def __init__(self, expression: BoundedExpression, name: str) -> None:
        self._expression, self._name = expression, name
        self._seen: dict[tuple[int, int], bool] = {}  # whether what a node looks for is at a place

    def ends(self, sequence: Iterable[Any], starts: set[int], on: int, off: int) -> set[int]:
        """Where nodes in a row can end, the first of which begins at one of some places."""
        for node in sequence:
            if starts:
                starts = self._ends_of(node, starts, on, off)
        return starts

    def _ends_of(self, node: Any, starts: set[int], on: int, off: int) -> set[int]:
        kind, value = str(node[0]), node[1]
        if kind == "SUBPATTERN":
            _, more, less, inside = value
            return self.ends(inside, starts, (on | more) & ~less, (off | less) & ~more)
        if kind == "BRANCH":
            return set().union(*(self.ends(branch, starts, on, off) for branch in value[1]))
        if kind in _REPEATS:
            return self._repeated(value, starts, on, off)
        if kind in _LOOKS:
            wanted = kind == "ASSERT"
            return {place for place in starts if self._sees(node, place, on, off) == wanted}
        leaf = self._expression.leaf(node, on, off)
        found = (leaf.match(self._name, place) for place in starts)
        return {match.end() for match in found if match is not None}

    def _repeated(self, value: Any, starts: set[int], on: int, off: int) -> set[int]:
        least, most, inside = int(value[0]), int(value[1]), value[2]
        ends = starts
        for _ in range(least):
            before, ends = ends, self.ends(inside, ends, on, off)
            if ends == before:  # and so from here on
                break
        reached, count = set(ends), least
        while ends and count < most:
            ends = self.ends(inside, ends, on, off) - reached
            reached |= ends
            count += 1
        return reached

    def _sees(self, node: Any, place: int, on: int, off: int) -> bool:
        if (id(node), place) not in self._seen:
            direction, inside = node[1]
            start = place - inside.getwidth()[0] if direction < 0 else place
            ends = self.ends(inside, {start}, on, off) if start >= 0 else set()
            self._seen[id(node), place] = place in ends if direction < 0 else bool(ends)
        return self._seen[id(node), place]


def _parts(node: Any) -> Sequence[Any]:
    """The sequences in a node."""
    kind, value = str(node[0]), node[1]
    if kind == "BRANCH":
        return value[1]  # type: ignore[no-any-return]
    if kind == "SUBPATTERN":
        return [value[3]]
    if kind in _REPEATS:
        return [value[2]]
    if kind in _LOOKS:
        return [value[1]]
    if kind in _LEAVES:
        return []
    raise ValueError("references to groups, atomic groups and possessive repetitions are not supported")


def _choices(sequence: Iterable[Any], depth: int) -> int | None:
    """How many choices Python has in a sequence; None if repetitions have some in them, where they multiply."""
    if depth > _DEEPEST:
        raise ValueError(f"its groups are nested more than {_DEEPEST} deep")
    total, multiply = 0, False
    for node in sequence:
        for part in _parts(node):
            inside = _choices(part, depth + 1)
            repeats = str(node[0]) in _REPEATS and int(node[1][1]) > 1
            multiply |= inside is None or (repeats and inside > 0)
            total += inside or 0
        kind = str(node[0])
        total += kind == "BRANCH" or (kind in _REPEATS and node[1][0] != node[1][1])
    return None if multiply else total
