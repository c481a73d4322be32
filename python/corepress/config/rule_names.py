"""Translate rules by names of Hugging Face or PyTorch to the names in the package."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .config import Config, Rule
from .patterns import REGULAR, NamePatterns, readings

_LISTED = 3
# What language models call the layer that turns features into tokens.
_HEAD = re.compile(r"(?<![a-z])(lm_head|embed_out|output_projection)(?![a-z])")


def resolve_names(
    config: Config, names: Sequence[str], tied_embedding: str | None = None
) -> tuple[Config, tuple[str, ...]]:
    """Replace the rules by name that match nothing in a model by what they most likely refer to.

    A dotted pattern is tried as a PyTorch module, then as one that contains others; a rule for the head of a language
    model is applied to the embedding that the head is tied to.

    Parameters
    ----------
    config : Config
        The config.
    names : sequence of str
        Names of the model's weights and of the operations that use them.
    tied_embedding : str, optional
        Name of the weight that is both the embedding and the head.

    Returns
    -------
    config : Config
        The config with rules that match.
    notes : tuple of str
        What was replaced, and the names that match now.
    """
    matched = config.matched(names)
    rules, notes = list(config.weights), []
    for number, rule in enumerate(config.weights):
        if number in matched:
            continue
        for pattern in readings(rule.pattern):
            found = _matches(pattern, names)
            if found:
                rules[number] = Rule(pattern, rule.config)
                notes.append(f"rule {rule.pattern!r} is read as {pattern!r} and matches {_listed(found)}")
                break
        else:
            if tied_embedding is not None and _HEAD.search(rule.pattern):
                rules[number] = Rule(REGULAR + re.escape(tied_embedding), rule.config)
                notes.append(f"rule {rule.pattern!r} applies to {tied_embedding}: the head is tied to the embedding")
    return (replace(config, weights=tuple(rules)) if notes else config), tuple(notes)


def _matches(pattern: str, names: Iterable[str]) -> list[str]:
    patterns = NamePatterns([pattern])
    return [name for name in names if next(patterns.matching(name), None) is not None]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
