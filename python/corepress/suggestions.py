"""Hints for misspelled names: "did you mean …?"."""

from __future__ import annotations

from collections.abc import Iterable


def suggestion(name: object, known: Iterable[str]) -> str:
    """``; did you mean 'nbits'?`` if a known name is similar, else an empty string."""
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1) if isinstance(name, str) else []
    return f"; did you mean {near[0]!r}?" if near else ""
