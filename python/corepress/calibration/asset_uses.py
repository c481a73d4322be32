"""Which operations of a function of an asset multiply by which weights, and how each reads its weight as matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ..compression.matrix_view import MatrixView
from ..coreai.program.constants import Constants
from ..coreai.program.graph import Graph
from ..coreai.program.program import Program
from ..coreai.program.uses import Use
from ..coreai.program.weights import Weight
from ..runtime.coreai_activations import Place

_CONVOLUTIONS, _TRANSPOSED = ("conv2d", "conv3d"), ("conv_transpose2d", "conv_transpose3d")
_MATMULS = ("batch_matmul", "broadcasting_batch_matmul")
_LOOKUPS = ("gather_nd", "gather_along_axis")


class _NoView(Exception):
    """A weight is used in a way for which there are no second moments; the message says how."""


@dataclass(frozen=True)
class AssetUse:
    """How an operation uses a weight.

    Attributes
    ----------
    kind : str
        "matmul", "conv", "conv_transpose", or "lookup" of rows, for which there are no second moments.
    source : tuple of int, str or None
        Where the value is that the weight is multiplied with, or looked up by: its place in the function, or the name
        of an input. None where it cannot be observed.
    view : MatrixView or None
        How the weight is read as matrices; None where there is no such view.
    kernel, strides, dilations : tuple of int
        Of a convolution.
    turned : bool
        Whether the value's vectors are along the axis before its last.
    batch : int
        Of a batch of matrices, its axis in the weight's operand, counted from the end; 0 if there is none.
    reason : str
        Why there is no view.
    """

    kind: str
    source: Place | str | None = None
    view: MatrixView | None = None
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    turned: bool = False
    batch: int = 0
    reason: str = ""


class AssetUses:
    """The uses of weights in a function.

    Parameters
    ----------
    program : Program
        The program.
    function : str
        The function.
    """

    def __init__(self, program: Program, function: str) -> None:
        self._program = program
        self._graph = next(graph for graph in program.graphs if graph.name == function)
        self._inputs = dict(zip(self._graph.arguments, self._graph.argument_names, strict=True))
        self._places: dict[Any, Place] = {
            result: (number, index)
            for number, operation in enumerate(self._graph.block.operations)
            for index, result in enumerate(operation.results)
        }
        self._callers = _callers(program)
        self._reached = self._reached_graphs()

    def of(self, weight: Weight) -> list[AssetUse]:
        """The uses of a weight in this function and in those that it calls."""
        return [self._use(weight, use) for use in weight.uses if use.direct_graph.name in self._reached]

    def _use(self, weight: Weight, use: Use) -> AssetUse:
        operation = use.consumer.operation
        try:
            if operation == "gather_nd":
                source = self._source(use.operation.operands[1 - use.operand], use)
                return AssetUse("lookup", source, reason=f"its rows are looked up by {operation}")
            if operation in _LOOKUPS:
                raise _NoView(f"its parts are looked up by {operation}")
            if operation in (*_CONVOLUTIONS, *_TRANSPOSED):
                found = self._convolution(weight, use)
            elif operation in _MATMULS:
                found = _product(weight, use)
            else:
                raise _NoView(f"it is the {use.consumer.operand} of {operation}")
            return replace(found, source=self._source(use.activation, use))
        except _NoView as reason:
            return AssetUse("", reason=str(reason))

    def _convolution(self, weight: Weight, use: Use) -> AssetUse:
        consumer, operation = use.consumer, use.operation
        transposed = consumer.operation in _TRANSPOSED
        expected = (1, 0) if transposed else (0, 1)
        shape = tuple(operation.operands[use.operand].type.shape)
        if use.operand != 1 or (consumer.axis, consumer.input_axis) != expected or shape != weight.shape:
            raise _NoView(f"it is rearranged before {consumer.operation}")
        groups = consumer.groups
        if groups is None:
            raise _NoView(f"the groups of its {consumer.operation} are known only in a run")
        inner = tuple(range(1, len(shape)))
        rows, columns = (inner, (0,)) if transposed else ((0,), inner)
        view = _view(weight.shape, rows, columns, groups, 0)
        if transposed:
            return AssetUse("conv_transpose", None, view)
        strides, dilations = (
            _integers(self._program.constants, operation.operands[place], what, len(shape) - 2)
            for place, what in ((2, "strides"), (3, "dilations"))
        )
        return AssetUse("conv", None, view, shape[2:], strides, dilations)

    def _source(self, value: Any, use: Use) -> Place | str:
        """Where a value is in the function."""
        graph: Graph = use.graph
        for _ in range(len(self._callers) + 1):
            if graph is self._graph or graph.name == self._graph.name:
                found: Place | str | None = self._inputs.get(value) or self._places.get(value)
                if found is not None:
                    return found
                raise _NoView("it is used in a branch or a loop, whose values cannot be observed")
            if value not in graph.arguments:
                break
            value, graph = self._argument(graph.arguments.index(value), graph, use)
        raise _NoView(f"it is used in function {graph.name}, whose values cannot be observed")

    def _argument(self, index: int, graph: Graph, use: Use) -> tuple[Any, Graph]:
        """What a function's argument is where it is called."""
        calls = self._callers.get(graph.name, [])
        direct = [call for call in calls if call[0] == use.direct]
        if len(calls) != 1 and not direct:
            raise _NoView(f"it is used in function {graph.name}, which is called in several places")
        invoke, caller = (direct or calls)[0]
        return invoke.operands[index], caller

    def _reached_graphs(self) -> set[str]:
        """The names of the functions that this one calls, and its own."""
        reached, before = {self._graph.name}, 0
        while len(reached) > before:
            before = len(reached)
            for name, calls in self._callers.items():
                if any(caller.name in reached for _, caller in calls):
                    reached.add(name)
        return reached


def _callers(program: Program) -> dict[str, list[tuple[Any, Graph]]]:
    """By the name of each function, the operations that call it, and their functions."""
    found: dict[str, list[tuple[Any, Graph]]] = {}
    for graph in program.graphs:
        for operation in graph.operations:
            if operation.name == "coreai.invoke" and (called := program.graphs.called_by(operation)) is not None:
                found.setdefault(called.name, []).append((operation, graph))
    return found


def _product(weight: Weight, use: Use) -> AssetUse:
    consumer, operand = use.consumer, use.operation.operands[use.operand]
    rows, columns = consumer.axis, consumer.input_axis
    if rows is None or columns is None:
        raise _NoView(f"it is reshaped before {consumer.operation}")
    rest = [axis for axis in range(len(weight.shape)) if axis not in (rows, columns)]
    batches = [axis for axis in rest if weight.shape[axis] > 1]
    if len(batches) > 1:
        raise _NoView("it is a batch of matrices along several axes")
    turned = use.operand == 0
    if not batches:
        return AssetUse("matmul", None, _view(weight.shape, (rows, *rest), (columns,)), turned=turned)
    (batch,) = batches
    shape = tuple(operand.type.shape)
    places = [place for place, size in enumerate(shape[:-2]) if size > 1]
    if len(places) != 1 or shape[places[0]] != weight.shape[batch]:
        raise _NoView(f"it is reshaped before {consumer.operation}")
    view = _view(
        weight.shape, (batch, rows, *(axis for axis in rest if axis != batch)), (columns,), shape[places[0]], batch
    )
    return AssetUse("matmul", None, view, turned=turned, batch=places[0] - len(shape))


def _view(
    shape: tuple[int, ...], rows: tuple[int, ...], columns: tuple[int, ...], groups: int = 1, group_axis: int = 0
) -> MatrixView:
    try:
        return MatrixView(shape, rows, columns, groups, group_axis)
    except ValueError as error:
        raise _NoView(str(error).removeprefix("MatrixView: ")) from error


def _integers(constants: Constants, value: Any, what: str, count: int) -> tuple[int, ...]:
    """Options that are constants."""
    owner = getattr(value, "owner", None)
    owner = getattr(owner, "operation", owner)
    if getattr(owner, "name", None) != "coreai.constant":
        raise _NoView(f"the {what} of its convolution are known only in a run")
    constant = constants.read(owner)
    size = prod(constant.shape)
    found = [0] * size if constant.is_zero else np.ravel(constant.data.view(constant.type.storage)).tolist()
    if size != count:
        raise _NoView(f"its convolution has {size} {what}, but {count} lengths")
    return tuple(map(int, found))


def distinct_sources(uses: Iterator[AssetUse]) -> list[Place | str]:
    """The sources of uses, each once, in order."""
    return list(dict.fromkeys(use.source for use in uses if use.source is not None))
