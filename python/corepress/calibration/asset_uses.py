"""Which operations of a function of an asset multiply by which weights, and how each reads its weight as matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from ..compression.matrix_view import MatrixView
from ..coreai.program.constants import Constants
from ..coreai.program.graph import Graph
from ..coreai.program.modules import short_name
from ..coreai.program.program import Program
from ..coreai.program.uses import Use
from ..coreai.program.weights import Weight
from ..runtime.coreai_activations import Place, Shape, tensor_of

_CONVOLUTIONS, _TRANSPOSED = ("conv2d", "conv3d"), ("conv_transpose2d", "conv_transpose3d")
_MATMULS = ("batch_matmul", "broadcasting_batch_matmul")
_RESHAPES = ("reshape", "expand_dims", "shrink_dims")
_LOOKUPS = ("gather_nd", "gather_along_axis")


_DEEPEST = 32  # of calls, one in another
_Calls = tuple[tuple[Any, Graph], ...]  # operations that call, each with its function, the outermost first


class _NoView(Exception):
    """A weight is used in a way for which there are no second moments; the message says how."""


@dataclass(frozen=True)
class AssetUse:
    """How an operation uses a weight.

    Attributes
    ----------
    kind : str
        "matmul", "conv", "conv_transpose", "experts", of which each vector has its own, or "lookup" of rows, for which
        there are no second moments.
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
    vectors, chosen : tuple of int, str or None
        Of experts, where the vectors are, and the numbers of the matrices that they are multiplied with; one of them is
        the source.
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
    vectors: Place | str | None = None
    chosen: Place | str | None = None
    reason: str = ""


class AssetUses:
    """The uses of weights in a function.

    Parameters
    ----------
    program : Program
        The program.
    function : str
        The function.

    Attributes
    ----------
    shapes : dict
        The shape of each source of a use; None for sizes that only a run decides.
    """

    def __init__(self, program: Program, function: str) -> None:
        self._program = program
        self._function = function
        self._graphs = {graph.name: graph for graph in program.graphs}
        self._values = {graph.name: _values_of(graph) for graph in program.graphs}
        self._callers = _callers(program)
        self.shapes: dict[Place | str, Shape] = {}

    def of(self, weight: Weight) -> list[AssetUse]:
        """The uses of a weight in this function and in those that it calls, one for each call."""
        return [found for use in weight.uses for found in self._uses(weight, use)]

    def _uses(self, weight: Weight, use: Use) -> Iterator[AssetUse]:
        try:
            calls = [each for each in self._calls(use.graph.name) if _passes(each, use)]
            if not calls:
                return
            if use.consumer.operation in _LOOKUPS and (product := _product_of(use.operation)) is not None:
                yield from (self._experts(weight, use, product, each) for each in calls)
                return
            found = self._reading(weight, use)
            taken = use.operation.operands[1 - use.operand]
            for each in calls:
                yield replace(found, source=self._source(taken, use.graph, each))
        except _NoView as reason:
            yield AssetUse("", reason=str(reason))

    def _reading(self, weight: Weight, use: Use) -> AssetUse:
        operation = use.consumer.operation
        if operation == "gather_nd":
            return AssetUse("lookup", reason=f"its rows are looked up by {operation}")
        if operation in _LOOKUPS:
            raise _NoView(f"its parts are looked up by {operation}")
        if operation in (*_CONVOLUTIONS, *_TRANSPOSED):
            return self._convolution(weight, use)
        if operation in _MATMULS:
            return _product(weight, use)
        raise _NoView(f"it is the {use.consumer.operand} of {operation}")

    def _calls(self, name: str, depth: int = 0) -> list[_Calls]:
        """The ways from the function to one that it calls, itself or through others."""
        if name == self._function:
            return [()]
        if depth > _DEEPEST:
            return []
        return [
            (*before, (call, caller))
            for call, caller in self._callers.get(name, ())
            for before in self._calls(caller.name, depth + 1)
        ]

    def _source(self, value: Any, graph: Graph, calls: _Calls) -> Place | str:
        """Where a value of a function is, given the calls by which it was reached."""
        while value in graph.arguments and calls:
            (call, caller), index = calls[-1], graph.arguments.index(value)
            value, graph, calls = call.operands[index], caller, calls[:-1]
        if value in graph.arguments:
            found: Place | str = graph.argument_names[graph.arguments.index(value)]
        else:
            path = [self._values[caller.name].get(next(iter(call.results), None)) for call, caller in calls]
            places = [*path, self._values[graph.name].get(value)]
            if None in places:
                raise _NoView("it is used in a branch or a loop, whose values cannot be observed")
            found = (*(place[0] for place in places if place is not None), places[-1][1])  # type: ignore[index]
        self.shapes[found] = tensor_of(value.type)[1]
        return found

    def _experts(self, weight: Weight, use: Use, product: Any, calls: _Calls) -> AssetUse:
        """A product with matrices that are looked up by their numbers, which are the weight's first axis."""
        lookup, (rows, columns) = use.operation, (use.consumer.axis, use.consumer.input_axis)
        if len(weight.shape) != 3 or {rows, columns} != {1, 2}:
            raise _NoView(f"its parts are looked up by {use.consumer.operation}")
        assert rows is not None
        assert columns is not None
        numbers = lookup.operands[1]
        if use.consumer.operation == "gather_along_axis":
            axis = _integers(self._program.constants, lookup.operands[2], "axis", 1)
            spread_by = getattr(numbers.owner, "operation", None)
            if axis != (0,) or spread_by is None or short_name(spread_by) != "broadcast_in_dims":
                raise _NoView("its parts are looked up by gather_along_axis")
            numbers = spread_by.operands[0]  # one for each matrix, not for each of its elements
            if prod(each or 0 for each in tensor_of(numbers.type)[1]) != tensor_of(lookup.results[0].type)[1][0]:
                raise _NoView("its parts are looked up by gather_along_axis")
        vectors, chosen = (self._source(each, use.graph, calls) for each in (product.operands[0], numbers))
        view = _view(weight.shape, (0, rows), (columns,), weight.shape[0], 0)
        source = chosen if isinstance(vectors, str) else vectors
        return AssetUse("experts", source, view, vectors=vectors, chosen=chosen)

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


def _values_of(graph: Graph) -> dict[Any, Place]:
    """The place of each value that a function computes, without those within blocks of others."""
    return {
        result: (number, index)
        for number, operation in enumerate(graph.block.operations)
        for index, result in enumerate(operation.results)
    }


def _product_of(lookup: Any) -> Any:
    """The matrix product that alone takes what is looked up, as its second operand; None if there is none."""
    value = lookup.results[0]
    for _ in range(_DEEPEST):
        uses = list(value.uses)
        if len(uses) != 1:
            return None
        operation, name = uses[0].owner.operation, short_name(uses[0].owner.operation)
        if name in _MATMULS:
            return operation if uses[0].operand_number == 1 else None
        before, after = (tensor_of(each.type)[1] for each in (value, operation.results[0]))
        joins_matrices = name in _RESHAPES and before[-2:] == after[-2:] and None not in after[-2:]
        if name not in ("transpose", "cast") and not joins_matrices:
            return None
        value = operation.results[0]
    return None


def _passes(calls: _Calls, use: Use) -> bool:
    """Whether calls are those by which a weight that is an argument is passed on."""
    return use.graph is use.direct_graph or any(call == use.direct for call, _ in calls)


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
    found = constant.expanded().view(constant.type.storage).tolist()
    if size != count:
        raise _NoView(f"its convolution has {size} {what}, but {count} lengths")
    return tuple(map(int, found))


def distinct_sources(uses: Iterator[AssetUse]) -> list[Place | str]:
    """The sources of uses, each once, in order."""
    return list(dict.fromkeys(use.source for use in uses if use.source is not None))
