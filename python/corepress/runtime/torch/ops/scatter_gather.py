"""Gathering and scattering by indices.

Before iOS 17 a negative index counts from the end; from iOS 17 on it is out of range, as one beyond the end is in all
versions. What happens to those is undefined in Core ML unless ``validate_indices`` is set, which makes them an error.
Here gathering takes the element at the nearest index (before iOS 17: at the index modulo the size), and scattering
leaves out the update. Where "update" writes twice to one place, the later value stays, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ....coreml.format.versions import IOS17
from ..limits import ELEMENT_LIMIT, limited
from ..registry import implements
from .elementwise_binary import real_div


@implements("gather", exact=True, stored_weights=True)
def gather(x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0) -> Tensor:
    """Slices of x along an axis; from iOS 16 on with dimensions that x and the indices share."""
    return _gather(x, indices, axis, batch_dims, _wrapped)


@implements("gather", since=IOS17, exact=True, stored_weights=True)
def gather_nonnegative(
    x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Slices of x along an axis, with dimensions that x and the indices share."""
    if validate_indices:
        _validate(indices, x.shape[axis])
    return _gather(x, indices, axis, batch_dims, _limited)


@implements("gather_along_axis", exact=True)
def gather_along_axis(x: Tensor, indices: Tensor, *, axis: int = 0) -> Tensor:
    """Single elements of x along an axis."""
    return _picked(partial(torch.gather, x, axis), x, indices.long(), x.shape[axis], _wrapped)


@implements("gather_along_axis", since=IOS17, exact=True)
def gather_along_axis_nonnegative(
    x: Tensor, indices: Tensor, *, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    """Single elements of x along an axis."""
    if validate_indices:
        _validate(indices, x.shape[axis])
    return _picked(partial(torch.gather, x, axis), x, indices.long(), x.shape[axis], _limited)


@implements("gather_nd", exact=True)
def gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Tensor:
    """Slices of x at the coordinates in the last axis of the indices."""
    sizes = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    coordinates = [_wrapped(each.long(), size) for each, size in zip(indices.unbind(-1), sizes, strict=True)]
    return _gather_at(x, coordinates, indices, batch_dims)


@implements("gather_nd", since=IOS17, exact=True)
def gather_nd_nonnegative(x: Tensor, indices: Tensor, *, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """Slices of x at the coordinates in the last axis of the indices."""
    sizes = x.shape[batch_dims : batch_dims + indices.shape[-1]]
    coordinates = [each.long() for each in indices.unbind(-1)]
    if validate_indices:
        for each, size in zip(coordinates, sizes, strict=True):
            _validate(each, size)
    coordinates = [_limited(each, size) for each, size in zip(coordinates, sizes, strict=True)]
    return _gather_at(x, coordinates, indices, batch_dims)


@implements("scatter")
def scatter(data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, mode: str = "add") -> Tensor:
    """data with slices along an axis combined with updates."""
    return _scatter(data, _from_end(indices, data.shape[axis]), updates, axis, mode)


@implements("scatter", since=IOS17)
def scatter_nonnegative(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """data with slices along an axis combined with updates."""
    if validate_indices:
        _validate(indices, data.shape[axis])
    return _scatter(data, indices.long(), updates, axis, mode)


@implements("scatter_along_axis")
def scatter_along_axis(data: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, mode: str = "add") -> Tensor:
    """data with single elements combined with updates; the indices have the shape of the updates."""
    return _scatter_elements(data, _from_end(indices, data.shape[axis]), updates, axis, mode)


@implements("scatter_along_axis", since=IOS17)
def scatter_along_axis_nonnegative(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    *,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """data with single elements combined with updates; the indices have the shape of the updates."""
    if validate_indices:
        _validate(indices, data.shape[axis])
    return _scatter_elements(data, indices.long(), updates, axis, mode)


@implements("scatter_nd")
def scatter_nd(data: Tensor, indices: Tensor, updates: Tensor, *, mode: str = "add") -> Tensor:
    """data with slices at the coordinates in the last axis of the indices combined with updates."""
    coordinates = [_from_end(each, size) for each, size in zip(indices.unbind(-1), data.shape, strict=False)]
    return _scatter_at(data, coordinates, indices, updates, mode)


@implements("scatter_nd", since=IOS17)
def scatter_nd_nonnegative(
    data: Tensor, indices: Tensor, updates: Tensor, *, mode: str = "add", validate_indices: bool = False
) -> Tensor:
    """data with slices at the coordinates in the last axis of the indices combined with updates."""
    coordinates = [each.long() for each in indices.unbind(-1)]
    if validate_indices:
        for each, size in zip(coordinates, data.shape, strict=False):
            _validate(each, size)
    return _scatter_at(data, coordinates, indices, updates, mode)


def _validate(indices: Tensor, size: int) -> None:
    outside = (indices < 0) | (indices >= size)
    if outside.any():
        raise ValueError(f"indices are in range({size}), {indices[outside][0].item()}")


def _limited(indices: Tensor, size: int) -> Tensor:
    return indices.clamp(0, size - 1) if size else _of_nothing(indices)


def _wrapped(indices: Tensor, size: int) -> Tensor:
    return torch.remainder(indices, size) if size else _of_nothing(indices)


def _of_nothing(indices: Tensor) -> Tensor:
    if indices.numel():
        raise ValueError(f"an axis without elements is gathered from by no indices, {indices.numel()} indices")
    return indices


def _picked(
    pick: Callable[[Tensor], Tensor], x: Tensor, indices: Tensor, size: int, repair: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """What the indices pick; they are brought into range only where PyTorch, which checks them on the CPU, refuses."""
    if x.is_cpu and not torch.compiler.is_compiling():
        try:
            return pick(indices)
        except (IndexError, RuntimeError):
            pass
    return pick(repair(indices, size))


def _from_end(indices: Tensor, size: int) -> Tensor:
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


def _gather(x: Tensor, indices: Tensor, axis: int, batch_dims: int, repair: Callable[[Tensor, int], Tensor]) -> Tensor:
    if indices.dtype is not torch.int32 and indices.dtype is not torch.int64:
        indices = indices.long()
    size = x.shape[axis]
    if x.numel() * indices.numel() > ELEMENT_LIMIT:
        limited((*x.shape[: axis % x.ndim], *indices.shape[batch_dims:], *x.shape[axis % x.ndim + 1 :]))
    if not batch_dims:
        if indices.ndim == 1:
            return _picked(partial(torch.index_select, x, axis), x, indices, size, repair)
        axis %= x.ndim
        if not axis and x.ndim == 2:
            return _picked(partial(torch.embedding, x), x, indices, size, repair)
        picked = _picked(partial(torch.index_select, x, axis), x, indices.reshape(-1), size, repair)
        return picked.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    axis %= x.ndim
    batch = math.prod(x.shape[:batch_dims])
    before, after = math.prod(x.shape[batch_dims:axis]), math.prod(x.shape[axis + 1 :])
    index = indices.long().reshape(batch, 1, math.prod(indices.shape[batch_dims:]), 1).expand(-1, before, -1, after)
    picked = _picked(partial(torch.gather, x.reshape(batch, before, size, after), 2), x, index, size, repair)
    return picked.reshape(x.shape[:axis] + indices.shape[batch_dims:] + x.shape[axis + 1 :])


def _linear(coordinates: Sequence[Tensor], sizes: Sequence[int], like: Tensor) -> Tensor:
    """The index among all combinations of coordinates, in C order."""
    index = like.new_zeros((), dtype=torch.int64)
    for each, size in zip(coordinates, sizes, strict=True):
        index = index * size + each
    return index


def _gather_at(x: Tensor, coordinates: list[Tensor], indices: Tensor, batch_dims: int) -> Tensor:
    places = batch_dims + len(coordinates)
    limited((*indices.shape[:-1], *x.shape[places:]))
    batch = math.prod(x.shape[:batch_dims])
    index = _linear(coordinates, x.shape[batch_dims:places], indices).expand(indices.shape[:-1])
    if batch_dims:
        offsets = torch.arange(batch, device=x.device) * math.prod(x.shape[batch_dims:places])
        index = index.reshape(batch, -1) + offsets.unsqueeze(1)
    flat = x.reshape(math.prod(x.shape[:places]), -1) if x.numel() else x.flatten(0, max(places - 1, 0))
    return flat.index_select(0, index.reshape(-1)).reshape(indices.shape[:-1] + x.shape[places:])


def _scatter(data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    axis %= data.ndim
    if indices.ndim != 1:
        updates = updates.reshape((*data.shape[:axis], indices.numel(), *data.shape[axis + 1 :]))
        indices = indices.reshape(-1)
    index = indices.reshape((-1,) + (1,) * (data.ndim - 1 - axis)).expand(updates.shape)
    return _scatter_elements(data, index, updates, axis, mode)


def _scatter_at(data: Tensor, coordinates: list[Tensor], indices: Tensor, updates: Tensor, mode: str) -> Tensor:
    sizes = data.shape[: len(coordinates)]
    places = math.prod(sizes)
    index = _linear(coordinates, sizes, indices).expand(indices.shape[:-1])
    for each, size in zip(coordinates, sizes, strict=True):
        index = torch.where((each < 0) | (each >= size), places, index)
    rest = math.prod(data.shape[len(coordinates) :])
    flat = updates.reshape(index.numel(), rest)
    return _scatter(data.reshape(places, rest), index.reshape(-1), flat, 0, mode).reshape(data.shape)


def _scatter_elements(data: Tensor, indices: Tensor, updates: Tensor, axis: int, mode: str) -> Tensor:
    """data combined with updates, elementwise; indices outside of the axis are those of a slice that is dropped."""
    size = data.shape[axis]
    spare = list(data.shape)
    spare[axis] = 1
    data = torch.cat([data, data.new_ones(spare)], axis)
    indices = torch.remainder(indices.clamp(-1, size), size + 1)
    if mode == "update":
        result = data.scatter(axis, indices, updates)
    elif mode == "add":
        result = data.scatter_add(axis, indices, updates)
    elif mode == "sub":
        result = data.scatter_add(axis, indices, -updates)
    elif mode == "mul":
        result = data.scatter_reduce(axis, indices, updates, "prod")
    elif mode == "div":
        divisors = torch.ones_like(data).scatter_reduce(axis, indices, updates, "prod")
        result = real_div(data, divisors)
    elif mode == "max":
        result = data.scatter_reduce(axis, indices, updates, "amax")
    elif mode == "min":
        result = data.scatter_reduce(axis, indices, updates, "amin")
    else:
        raise ValueError(f"mode is add, div, max, min, mul, sub or update, {mode}")
    return result.narrow(axis, 0, size)
