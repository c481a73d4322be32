"""Who uses a value: the operations that consume it, seen through those that only rearrange it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ...engine.weights import Consumer
from .constants import Constants, type_of
from .graph import Graph, Graphs
from .modules import short_name

# Operations whose weights coreai-opt, or users, compress by default.
WEIGHT_OPERATIONS = frozenset(
    (
        "conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d", "batch_matmul", "broadcasting_batch_matmul",
        "gather_nd", "gather_along_axis",
    )
)  # fmt: skip
_CONVOLUTIONS = {"conv2d": (0, 1), "conv3d": (0, 1), "conv_transpose2d": (1, 0), "conv_transpose3d": (1, 0)}
_MATMULS = ("batch_matmul", "broadcasting_batch_matmul")
_RESHAPES = ("reshape", "expand_dims", "shrink_dims")
_SAME = ("cast", "copy_discarding_constraints", "copy_with_constraints")
# What a value must not change in: its reader may be anything.
_OBSTACLES = {
    "output": "feeds an output",
    "yield": "leaves a branch or loop",
    "condition": "is carried by a loop",
    "while": "is carried by a loop",
    "write_handle": "is written to a state",
    "delegate": "feeds a delegate",
    "metal4_kernel": "feeds a custom kernel",
    "isolated_group": "feeds an isolated group",
    "quantize": "is quantized at run time",
    "dequantize": "is dequantized at run time",
    "tensor_to_image": "feeds an image",
}
_OPERANDS = {
    "conv": ("input", "weight"),
    "matmul": ("x", "y"),
    "gather": ("input", "indices"),
}


@dataclass(eq=False)
class Use:
    """A consumer, and where it is in the program.

    Attributes
    ----------
    consumer : Consumer
        What users see of it.
    operation : operation of the program
        The consuming operation.
    operand : int
        The number of the operand that the weight, or what is made from it, is.
    graph : Graph
        Its function; a private one where the weight is an argument of it.
    direct : operation of the program
        The operation that takes the weight itself: the consumer, or the first of those that it is seen through.
    direct_graph : Graph
        The function of that one.
    argument : str or None
        Name of the private function's argument that it is.
    """

    consumer: Consumer
    operation: Any
    operand: int
    graph: Graph
    direct: Any
    direct_graph: Graph
    argument: str | None = None

    @property
    def activation(self) -> Any:
        """The value that a convolution or a matrix product multiplies with the weight; None for other consumers."""
        name = self.consumer.operation
        if name in _CONVOLUTIONS or name in _MATMULS:
            return self.operation.operands[1 - self.operand]
        return None


@dataclass
class _View:
    """A weight, rearranged: `axes` are the weight's axes that its own are, None where they are mixed."""

    value: Any
    axes: tuple[int | None, ...]
    graph: Graph
    direct: Any = None
    argument: str | None = None
    lookups: tuple[Any, int, str] | None = None
    depth: int = 0


@dataclass
class Uses:
    """All uses of a weight, and why it must be left unchanged, if it must."""

    found: list[Use] = field(default_factory=list)
    obstacle: str | None = None


_DEEPEST = 64  # of calls, one in another


def uses_of(value: Any, graph: Graph, graphs: Graphs, constants: Constants) -> Uses:
    """Find all uses of a value.

    Parameters
    ----------
    value : value of the program
        A weight.
    graph : Graph
        Its function.
    graphs : Graphs
        All functions, for those that it is an argument of.
    constants : Constants
        Reader of permutations and numbers of groups.
    """
    rank = len(value.type.shape)
    uses = Uses()
    _Search(graph, graphs, constants, uses).follow(_View(value, tuple(range(rank)), graph))
    uses.found.sort(key=lambda use: (graph.position_of(use.direct), use.graph.position_of(use.operation)))
    return uses


class _Search:
    def __init__(self, graph: Graph, graphs: Graphs, constants: Constants, uses: Uses) -> None:
        self._graph, self._graphs, self._constants, self._uses = graph, graphs, constants, uses

    def follow(self, view: _View) -> bool:
        """Record the uses of a view; whether any of them is a weight of a convolution or a matrix product."""
        found = False
        for use in view.value.uses:
            operation = use.owner.operation
            found |= self._use(view, operation, int(use.operand_number))
        return found

    def _use(self, view: _View, operation: Any, operand: int) -> bool:
        name = short_name(operation)
        direct = operation if view.direct is None else view.direct

        def seen(value: Any, axes: tuple[int | None, ...], **extra: Any) -> _View:
            fields = {"argument": view.argument, "lookups": view.lookups, "graph": view.graph, "depth": view.depth}
            return _View(value, axes, direct=direct, **(fields | extra))

        if name == "invoke":
            return self._invoke(view, seen, operation, operand)
        if operand == 0 and name in _SAME:
            return self.follow(seen(operation.results[0], view.axes))
        if operand == 0 and name == "transpose":
            axes = self._transposed(view.axes, operation)
            return self.follow(seen(operation.results[0], axes))
        if operand == 0 and name in _RESHAPES:
            return self.follow(seen(operation.results[0], _reshaped(view, operation)))
        if operand == 0 and name in ("gather_nd", "gather_along_axis") and view.lookups is None:
            return self._gather(view, seen, operation, name, direct)
        return self._record(view, operation, operand, name, direct)

    def _invoke(self, view: _View, seen: Any, operation: Any, operand: int) -> bool:
        graph = self._graphs.called_by(operation)
        if graph is None or view.depth >= _DEEPEST or operand >= len(graph.arguments):
            self._hinder("feeds a function that is not known")
            return False
        argument = graph.argument_names[operand]
        fields = {"graph": graph, "argument": view.argument or argument, "depth": view.depth + 1}
        return bool(self.follow(seen(graph.arguments[operand], view.axes, **fields)))

    def _transposed(self, axes: tuple[int | None, ...], operation: Any) -> tuple[int | None, ...]:
        order = self._integers(operation.operands[1]) if len(operation.operands) > 1 else None
        if order is None or sorted(each % len(axes) for each in order) != list(range(len(axes))):
            return (None,) * len(axes)
        return tuple(axes[each] for each in order)

    def _gather(self, view: _View, seen: Any, operation: Any, name: str, direct: Any) -> bool:
        """A table of rows, or of matrices for matrix products: then their axes are the channels."""
        result, rank = operation.results[0], len(view.axes)
        depth = operation.operands[1].type.shape[-1] if name == "gather_nd" else 0
        rest = view.axes[depth:]
        if name == "gather_nd" and len(rest) >= 2:
            axes = (None,) * (len(result.type.shape) - len(rest)) + rest
            if self.follow(seen(result, axes, lookups=(operation, 0, name))):
                return True
        elif (
            name == "gather_along_axis"
            and rank >= 3
            and self.follow(seen(result, view.axes, lookups=(operation, 0, name)))
        ):
            return True
        return self._record(view, operation, 0, name, direct)

    def _record(self, view: _View, operation: Any, operand: int, name: str, direct: Any) -> bool:
        if name in _OBSTACLES:
            if view.lookups is None:
                self._hinder(_OBSTACLES[name])
            return False
        axes = self._channels(view, operation, operand, name)
        if view.lookups is not None:
            if axes == (None, None):
                return False
            operation, operand, name = view.lookups
        consumer = Consumer(
            name, self._operand_name(name, operand), *axes, view.graph.name_of(operation),
            self._groups(operation, operand, name),
        )  # fmt: skip
        self._uses.found.append(Use(consumer, operation, operand, view.graph, direct, self._graph, view.argument))
        return axes != (None, None)

    def _hinder(self, reason: str) -> None:
        if self._uses.obstacle is None:
            self._uses.obstacle = reason

    def _channels(self, view: _View, operation: Any, operand: int, name: str) -> tuple[int | None, int | None]:
        rank = len(view.axes)
        if name in _CONVOLUTIONS:
            axes = _CONVOLUTIONS[name] if operand == 1 else (None, None)
        elif name in _MATMULS:
            if rank < 2:
                return None, None
            axes = (rank - 1, rank - 2) if operand == 1 else (rank - 2, rank - 1)
        elif name in ("gather_nd", "gather_along_axis") and operand == 0 and view.lookups is None:
            axes = (0, 1)
        else:
            return None, None
        output, source = (view.axes[axis] if axis is not None and axis < rank else None for axis in axes)
        return output, source

    def _groups(self, operation: Any, operand: int, name: str) -> int | None:
        if name not in _CONVOLUTIONS or operand != 1:
            return 1
        groups = self._integers(operation.operands[len(operation.operands) - 1])
        return groups[0] if groups is not None and len(groups) == 1 and groups[0] >= 1 else None

    def _operand_name(self, name: str, operand: int) -> str:
        for kind, names in _OPERANDS.items():
            if kind in name and operand < len(names):
                return names[operand]
        return str(operand)

    def _integers(self, value: Any) -> list[int] | None:
        """A small constant of integers; None for what is computed."""
        owner = getattr(value, "owner", None)
        found = type_of(value)
        if owner is None or found is None or not found[0].is_integer or found[0].packed:
            return None
        owner = getattr(owner, "operation", owner)
        if getattr(owner, "name", None) != "coreai.constant" or prod(found[1]) > 64:
            return None
        constant = self._constants.read(owner)
        if constant.is_zero:
            return [0] * prod(found[1])
        return [int(each) for each in np.ravel(constant.data.view(constant.type.storage))]


def _reshaped(view: _View, operation: Any) -> tuple[int | None, ...]:
    """The axes after a reshape: those whose elements stay together in both shapes."""
    before, after = tuple(view.value.type.shape), tuple(operation.results[0].type.shape)
    if min((*before, *after), default=1) < 1:
        return (None,) * len(after)
    axes: list[int | None] = [None] * len(after)
    for start, stop, first, last in _common_parts(before, after):
        long = [axis for axis in range(start, stop) if before[axis] > 1]
        new = [axis for axis in range(first, last) if after[axis] > 1]
        if len(long) == 1 and len(new) == 1:
            axes[new[0]] = view.axes[long[0]]
    return tuple(axes)


def _common_parts(before: tuple[int, ...], after: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Divide two shapes of as many elements into the shortest runs of axes with as many elements each."""
    start = first = 0
    while start < len(before) and first < len(after):
        stop, last = start + 1, first + 1
        ours, theirs = before[start], after[first]
        while ours != theirs:
            if ours < theirs and stop < len(before):
                ours *= before[stop]
                stop += 1
            elif theirs < ours and last < len(after):
                theirs *= after[last]
                last += 1
            else:
                return
        yield start, stop, first, last
        start, first = stop, last
