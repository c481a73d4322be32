"""Limits of what a model may ask for: what it computes must neither use up the memory nor go on for ever."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from math import prod

import torch
from torch import Tensor

from ...system import current

_LEAST, _MOST = 2**28, 2**31
_PART_OF_MEMORY = 16  # bytes for each element: operations have several tensors at a time, some of them of 8 bytes
ELEMENT_LIMIT = max(_LEAST, min(_MOST, (current.memory_bytes() or 0) // _PART_OF_MEMORY))
"""Elements of one tensor, and of all tensors of a list."""
LIST_LIMIT = 2**16  # elements of a list of tensors


def limited(shape: Iterable[int]) -> list[int]:
    """A shape as a list; ValueError if it has negative sizes or is too large."""
    sizes = [int(size) for size in shape]
    if min(sizes, default=0) < 0:
        raise ValueError(f"sizes must not be negative, but the shape is {sizes}")
    if prod(sizes) > ELEMENT_LIMIT:
        raise ValueError(
            f"a shape of {sizes} has {prod(sizes)} elements; the limit is {ELEMENT_LIMIT} on this machine; "
            "give smaller inputs"
        )
    return sizes


def limit_joined(values: Sequence[Tensor]) -> None:
    """Raise ValueError if tensors have too many elements to be joined to one."""
    count = sum(each.numel() for each in values)
    if count > ELEMENT_LIMIT:
        raise ValueError(
            f"{len(values)} tensors have {count} elements; the limit is {ELEMENT_LIMIT} on this machine; "
            "give smaller inputs"
        )


def limit_broadcast(*shapes: Sequence[int]) -> list[int]:
    """The shape to which shapes broadcast; ValueError if it is too large, or if they do not."""
    return limited(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]  # PyTorch does not annotate it


def broadcasting(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Raise ValueError if a function of two tensors, which broadcast, would make one that is too large."""

    @functools.wraps(function)
    def compute(x: Tensor, y: Tensor) -> Tensor:
        if x.numel() * y.numel() > ELEMENT_LIMIT:
            limit_broadcast(x.shape, y.shape)
        return function(x, y)

    del compute.__wrapped__  # whose signature is asked for; built-in functions have none
    return compute
