"""Limits of what a model may ask for: shapes that it computes must not use up the memory."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

ELEMENT_LIMIT = 2**31  # of one tensor
LIST_LIMIT = 2**20  # elements of a list of tensors


def limited(shape: Iterable[int]) -> list[int]:
    """A shape as a list; ValueError if it has negative sizes or is too large."""
    sizes = [int(size) for size in shape]
    if min(sizes, default=0) < 0:
        raise ValueError(f"sizes must not be negative, but the shape is {sizes}")
    if prod(sizes) > ELEMENT_LIMIT:
        raise ValueError(f"a shape of {sizes} has {prod(sizes)} elements; the limit is {ELEMENT_LIMIT}")
    return sizes
