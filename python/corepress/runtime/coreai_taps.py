"""Values of a Core AI program by their places, those of functions that it calls too; only `coreai_worker` calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..coreai.program.graph import Graphs
from ..coreai.program.modules import ir
from .coreai_activations import Place


def values_at(program: Any, graph: Any, places: Sequence[Place]) -> list[Any]:
    """The values at places of a function.

    Where a place is in a function that is called, its operations take the place of the call, as only values of the
    function itself can be returned.

    Parameters
    ----------
    program : coreai.authoring.AIProgram
        The program, whose context is entered.
    graph : operation
        The function.
    places : sequence of tuple of int
        The places.
    """
    graphs = Graphs(program._module._mlir_module)
    inlined: dict[Place, list[Any]] = {(): list(graph.entry_block.operations)}
    for place in sorted(places, key=len):
        for depth in range(1, len(place) - 1):
            path = place[:depth]
            if path not in inlined:
                inlined[path] = _inline(graphs, inlined[path[:-1]][path[-1]])
    return [inlined[place[:-2]][place[-2]].results[place[-1]] for place in places]


def _inline(graphs: Graphs, call: Any) -> list[Any]:
    """Put copies of a function's operations where it is called; returns them in order."""
    called = graphs.called_by(call)
    assert called is not None
    values = dict(zip(called.arguments, call.operands, strict=True))
    copies = []
    for operation in called.block.operations:
        if operation.name == "coreai.output":
            for result, value in zip(call.results, operation.operands, strict=True):
                result.replace_all_uses_with(values.get(value, value))
            break
        copy = operation.clone(ip=ir().InsertionPoint(call))
        _replace_operands(copy, values)
        values.update(zip(operation.results, copy.results, strict=True))
        copies.append(copy)
    call.operation.erase()
    return copies


def _replace_operands(operation: Any, values: dict[Any, Any]) -> None:
    """Replace the values that an operation takes, those in its blocks too."""
    for index, operand in enumerate(operation.operands):
        if operand in values:
            operation.operands[index] = values[operand]
    for region in operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                _replace_operands(inner, values)
