"""The functions of a program and the operations in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .modules import short_name

_SYMBOL = re.compile(r'@(?:"([^"]*)"|([\w.$-]+))')
_NAMESPACE = "udml.namespace"
_RANDOM_END = re.compile(r"_(?:[0-9a-f]{8}|[a-z]{8})$")  # which converters add to names of called functions


class Graph:
    """A function of a program.

    Attributes
    ----------
    name : str
        Its name.
    is_private : bool
        Whether only other functions call it.
    is_called : bool
        Whether another function calls it.
    operation : operation of the program
        The function itself.
    arguments : list of values
        Its arguments.
    argument_names : list of str
        Their names.
    operations : list of operations
        All operations in it, those in branches and loops too, in order.
    """

    def __init__(self, operation: Any) -> None:
        self.operation = operation
        attributes = operation.attributes
        self.name = str(attributes["sym_name"]).strip('"')
        self.is_private = "priv" in attributes
        self.is_called = False
        self.block = operation.regions[0].blocks[0]
        self.arguments = list(self.block.arguments)
        self.argument_names = [
            _name_in(attributes["arg_attrs"], index) if "arg_attrs" in attributes else str(index)
            for index in range(len(self.arguments))
        ]
        self.operations = list(_all_operations(operation))
        self._names: dict[Any, str] = {}
        self._positions = {each: index for index, each in enumerate(self.operations)}
        counts: Counter[str] = Counter()
        for each in self.operations:
            short = short_name(each)
            if short != "constant":
                self._names[each] = f"{short}_{counts[short]}"
                counts[short] += 1

    @property
    def label(self) -> str:
        """Its name, for a function that others call without what makes it unique: the next conversion changes that."""
        return (_RANDOM_END.sub("", self.name) or self.name) if self.is_called else self.name

    def name_of(self, operation: Any) -> str:
        """The name of an operation that is no constant: its type, and its number among those of this type."""
        return self._names.get(operation, short_name(operation))

    def position_of(self, operation: Any) -> int:
        """The number of an operation among all."""
        return self._positions.get(operation, len(self._positions))


class Graphs:
    """All functions of a program, those in namespaces too."""

    def __init__(self, module: Any) -> None:
        self.all = [Graph(operation) for operation in _graphs_in(module.operation)]
        self._by_name = {graph.name: graph for graph in self.all}
        for graph in self.all:
            for operation in graph.operations:
                called = self.called_by(operation) if short_name(operation) == "invoke" else None
                if called is not None:
                    called.is_called = True

    def __iter__(self) -> Iterator[Graph]:
        return iter(self.all)

    def called_by(self, invoke: Any) -> Graph | None:
        """The function that an ``invoke`` calls; None if it is not in the program."""
        names = _SYMBOL.findall(str(invoke.attributes["callee"])) if "callee" in invoke.attributes else []
        return self._by_name.get("".join(names[-1])) if names else None


def _graphs_in(operation: Any) -> Iterator[Any]:
    for each in _children(operation):
        if each.name == "coreai.graph":
            yield each
        elif each.name == _NAMESPACE:
            yield from _graphs_in(each)


def _children(operation: Any) -> Iterator[Any]:
    for region in operation.regions:
        for block in region.blocks:
            for each in block.operations:
                yield each.operation


def _all_operations(operation: Any) -> Iterator[Any]:
    for each in _children(operation):
        yield each
        if len(each.regions):
            yield from _all_operations(each)


def _name_in(attributes: Any, index: int) -> str:
    found = attributes[index]
    return str(found["coreai.name"]).strip('"') if "coreai.name" in found else str(index)
