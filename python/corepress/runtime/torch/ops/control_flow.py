"""Selection, and lists of tensors; constants, branches and loops are the executor's.

A list is a Python list that no operation changes: writing returns a new one. Elements that were never written are
zeros; where their size is known at run time only, they have the size of the elements that were written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..limits import ELEMENT_LIMIT, LIST_LIMIT, limit_broadcast, limit_joined, limited
from ..registry import implements


class TensorList(list[Tensor]):
    """A list of tensors that knows how many elements they have: counted anew, many writes would take for ever."""

    elements = 0


_CARRIERS = {"bool": torch.bool, "int32": torch.int32, "fp16": torch.float32, "fp32": torch.float32}


@implements("select", exact=True)
def select(cond: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """a where the condition is true and b elsewhere; without them, the coordinates at which it is true."""
    if a is None or b is None:
        return torch.nonzero(cond)
    if cond.numel() * a.numel() * b.numel() > ELEMENT_LIMIT:
        limit_broadcast(cond.shape, a.shape, b.shape)
    return torch.where(cond, a, b)


@implements("make_list", exact=True)
def make_list(
    *,
    init_length: int = 1,
    dynamic_length: bool = True,
    elem_shape: Sequence[int | str] = (),
    dtype: str = "fp32",
) -> list[Tensor]:
    """A list of zeros. A name in the shape of its elements is a size that only the elements have."""
    sizes = limited(0 if isinstance(size, str) else size for size in elem_shape)
    if dtype not in _CARRIERS:
        raise ValueError(f"dtype is bool, fp16, fp32 or int32, {dtype}")
    limited((_checked(init_length), *sizes))
    found = TensorList([torch.zeros((), dtype=_CARRIERS[dtype]).expand(sizes)] * init_length)
    found.elements = init_length * math.prod(sizes)
    return found


@implements("list_length", exact=True)
def list_length(ls: list[Tensor]) -> Tensor:
    return torch.tensor(len(ls), dtype=torch.int32, device=ls[0].device if ls else None)


@implements("list_read", exact=True)
def list_read(ls: list[Tensor], *, index: int) -> Tensor:
    """An element; the nearest one where the index is outside of the list."""
    return _elements(ls, [index])[0]


@implements("list_write", exact=True)
def list_write(ls: list[Tensor], value: Tensor, *, index: int) -> list[Tensor]:
    """A list with another element, longer where the index is beyond its end."""
    return _written(ls, [index], [value])


@implements("list_gather", exact=True)
def list_gather(ls: list[Tensor], *, indices: Sequence[int]) -> Tensor:
    """Elements along a new first axis; the nearest ones where an index is outside of the list."""
    elements = _elements(ls, indices)
    limit_joined(elements)
    return torch.stack(elements) if elements else ls[0].new_zeros((0, *ls[0].shape)) if ls else torch.zeros(0)


@implements("list_scatter", exact=True)
def list_scatter(ls: list[Tensor], value: Tensor, *, indices: Sequence[int]) -> list[Tensor]:
    """A list with other elements, the slices of a tensor; longer where an index is beyond its end."""
    return _written(ls, indices, value.unbind(0))


def _checked(length: int) -> int:
    if not 0 <= length <= LIST_LIMIT:
        raise ValueError(f"lists have up to {LIST_LIMIT} elements, {length}")
    return length


def _elements(ls: list[Tensor], indices: Sequence[int]) -> list[Tensor]:
    if not indices:
        return []
    if not ls:
        raise ValueError("the list is empty")
    last = len(ls) - 1
    found = [ls[min(max(index, 0), last)] for index in indices]
    if any(not each.numel() for each in found):
        like = next((each for each in ls if each.numel()), ls[0])
        found = [each if each.numel() else torch.zeros_like(like) for each in found]
    return found


def _written(ls: list[Tensor], indices: Sequence[int], values: Sequence[Tensor]) -> list[Tensor]:
    result = TensorList(ls)
    result.elements = ls.elements if isinstance(ls, TensorList) else sum(each.numel() for each in ls)
    for index, value in zip(indices, values, strict=True):
        index = max(index, 0)
        if index >= len(result):
            more = _checked(index + 1) - len(result)
            result += [torch.zeros_like(value)] * more
            result.elements += more * value.numel()
        result.elements += value.numel() - result[index].numel()
        limited([result.elements])
        result[index] = value
    return result
