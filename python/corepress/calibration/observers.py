"""The input vectors that a weight is multiplied with, taken from the values of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..coreml.program.graph import Operation
from ..runtime.torch.constants import Constants
from ..runtime.torch.ops.windows import last_axis_first, pads_of
from ..runtime.torch.schedule import Step, Values
from .moments import Moments
from .places import WindowPlaces, spread
from .uses import NoView, Use, einsum_axes

_ELEMENTS = 1 << 24  # of vectors that are made at a time


class Options:
    """Options of operations, where the program has them as constants.

    Parameters
    ----------
    constants : Constants
        The constants of the program.
    """

    def __init__(self, constants: Constants) -> None:
        self._constants = constants

    def __call__(self, operation: Operation, name: str, default: Any) -> Any:
        """The value of an option; raises `NoView` if only a run decides."""
        arguments = operation.inputs.get(name)
        if not arguments:
            return default
        if not all(map(self._constants.is_constant, arguments)):
            raise NoView(f"the {name} of its {operation.type} is known only in a run")
        values = [self._constants.option(each) for each in arguments]
        return values[0] if len(values) == 1 else values


class InputObserver:
    """Adds the vectors that a weight is multiplied with in one operation to its moments.

    Parameters
    ----------
    use : Use
        The use.
    moments : Moments
        Where they are added.
    most : int
        Vectors that are taken from one run of the operation, evenly spread over all; each then counts for several.
    options : Options
        Reads the operation's options.

    Raises
    ------
    NoView
        If an option is known only in a run.
    """

    def __init__(self, use: Use, moments: Moments, most: int, options: Options) -> None:
        self._use, self._moments, self._most = use, moments, most
        operation = use.operation
        if operation.type == "conv":
            self._strides = options(operation, "strides", None)
            self._dilations = options(operation, "dilations", None)
            self._pad_type = options(operation, "pad_type", "valid")
            self._pad = options(operation, "pad", None)
        elif operation.type == "matmul":
            self._turned = bool(options(operation, f"transpose_{use.other}", False))
        elif operation.type == "einsum":
            self._letters = einsum_axes(options(operation, "equation", ""), use.place)

    def __call__(self, step: Step, values: Values) -> None:
        """Take the vectors of a step that was just computed."""
        slots = step.inputs.get(self._use.other, ())
        place = 1 - self._use.place if self._use.operation.type == "einsum" else 0
        if place >= len(slots) or not isinstance(values[slots[place]], Tensor):
            return
        x = values[slots[place]].detach()
        if x.numel() == 0:
            return
        x = x.float()
        if self._use.operation.type == "conv":
            self._add_windows(x)
        else:
            self._add(self._vectors(x))

    def _vectors(self, x: Tensor) -> Tensor:
        """All vectors, (groups, vectors, columns), a view where it can be."""
        moments, kind = self._moments, self._use.operation.type
        groups, columns = moments.groups, moments.columns
        if kind == "conv_transpose":
            return x.movedim(1, -1).reshape(-1, groups, columns).transpose(0, 1)
        if kind == "einsum":
            return self._einsum_vectors(x)
        if kind == "matmul" and x.dim() > 1:
            # x is multiplied along its last axis, y along the one before.
            if self._turned != (self._use.other == "y"):
                x = x.mT
            if groups > 1:
                return self._batched(x)
        return x.reshape(1, -1, columns)

    def _batched(self, x: Tensor) -> Tensor:
        """The vectors of each matrix of a batch; the batch's axis is counted from the end, as in broadcasting."""
        axis = self._use.batch
        if x.dim() < -axis or x.shape[axis] == 1:
            return x.reshape(1, -1, x.shape[-1]).expand(self._moments.groups, -1, -1)
        return x.movedim(axis, 0).reshape(self._moments.groups, -1, x.shape[-1])

    def _einsum_vectors(self, x: Tensor) -> Tensor:
        own, other, output = self._letters
        columns = [letter for letter in own if letter in other and letter not in output]
        groups = [letter for letter in own if letter in other and letter in output]
        free = [letter for letter in other if letter not in own]
        order = [other.index(letter) for letter in (*groups, *free, *columns)]
        turned = x.permute(order)
        lead = [x.shape[other.index(letter)] for letter in groups]
        if self._moments.groups > 1 and lead and max(lead) == 1:  # broadcast
            return turned.reshape(1, -1, self._moments.columns).expand(self._moments.groups, -1, -1)
        return turned.reshape(self._moments.groups, -1, self._moments.columns)

    def _add(self, vectors: Tensor) -> None:
        count = vectors.shape[1]
        chosen = spread(count, self._most)
        if chosen is not None:
            vectors = vectors[:, torch.from_numpy(chosen).to(vectors.device)]
        taken = vectors.shape[1]
        rows = max(1, _ELEMENTS // max(1, vectors.shape[0] * vectors.shape[2]))
        for start in range(0, taken, rows):
            part = vectors[:, start : start + rows].contiguous()
            last = start + rows >= taken
            self._moments.add(part, count / taken, count if last else 0)

    def _add_windows(self, x: Tensor) -> None:
        """The windows of a convolution; only those that are taken are made."""
        for windows, factor, count in self._windows(x):
            self._moments.add(windows, factor, count)

    def _windows(self, x: Tensor) -> Iterator[tuple[Tensor, float, int]]:
        kernel, spatial = self._use.kernel, x.dim() - 2
        strides, dilations = self._strides or [1] * spatial, self._dilations or [1] * spatial
        before, after = pads_of(self._pad_type, self._pad, x.shape[2:], kernel, strides, dilations)
        x = F.pad(x, last_axis_first(before, after))
        return windows(x, kernel, strides, dilations, self._moments.groups, self._most)


def windows(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], groups: int, most: int
) -> Iterator[tuple[Tensor, float, int]]:
    """The windows of a convolution, in pieces of bounded size; only those that are taken are made.

    Parameters
    ----------
    x : torch.Tensor, shape (samples, channels, lengths...)
        With its pads.
    kernel, strides, dilations : sequence of int
        One number for each of the lengths.
    groups : int
        Of channels.
    most : int
        Windows that are taken, evenly spread over all.

    Yields
    ------
    windows : torch.Tensor, shape (groups, windows, columns)
        The columns are those of the weight: channels, then the positions in the kernel.
    factor : float
        How often each counts.
    count : int
        How many windows there are, with the last piece; 0 with those before it.
    """
    x = x.movedim(1, -1)
    found = WindowPlaces.of(x.shape[:-1], kernel, strides, dilations, most)
    starts, offsets = torch.from_numpy(found.starts), torch.from_numpy(found.offsets)
    pixels = x.reshape(-1, x.shape[-1])
    rows = max(1, _ELEMENTS // (offsets.numel() * pixels.shape[1]))
    for start in range(0, len(starts), rows):
        index = (starts[start : start + rows, None] + offsets).to(x.device)
        taken = pixels[index.reshape(-1)].view(len(index), offsets.numel(), groups, -1)
        vectors = taken.permute(2, 0, 3, 1).reshape(groups, len(index), -1)
        yield vectors, found.factor, found.total if start + rows >= len(starts) else 0
