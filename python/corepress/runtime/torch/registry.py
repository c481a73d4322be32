"""Which function computes an operation, from which version on: the only list of the operations that can be run.

A function is called as its operation is: parameters have the names of the operation's inputs. What stands before ``*``
takes values (tensors, and lists of them); what stands after it takes plain Python values (int, float, bool, str, and
lists of these), which are read once, when the model is loaded, wherever the program has them as constants. Defaults are
those of the operation. It returns a tensor, or a tuple where the operation has several outputs; results are converted
to the types that the program declares by whoever calls it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ...coreml.format.versions import IOS15

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Implementation:
    """The function that computes an operation.

    Attributes
    ----------
    function : callable
        Computes it.
    since : int
        The specification version from which on the operation is what this function computes.
    exact : bool
        Whether its results are values that it was given, so that they need no rounding.
    stored_weights : bool
        Whether it takes float16 weights as they are stored, and widens what it needs of them itself.
    values : dict of str to object
        Its parameters that are tensors, in order, with their defaults.
    options : frozenset of str
        Its parameters that are plain Python values.
    required : tuple of str
        Parameters without a default.
    """

    function: Callable[..., Any]
    since: int
    exact: bool
    stored_weights: bool
    values: dict[str, Any]
    options: frozenset[str]
    required: tuple[str, ...]


_IMPLEMENTATIONS: dict[str, list[Implementation]] = {}


def implements(
    *operations: str, since: int = IOS15, exact: bool = False, stored_weights: bool = False
) -> Callable[[Function], Function]:
    """Register a function for operations, from a specification version on.

    Parameters
    ----------
    *operations : str
        Types of operations.
    since : int
        The specification version; functions of older versions stay in use below it.
    exact : bool
        Whether its results are values that it was given, unchanged.
    stored_weights : bool
        Whether it takes float16 weights as they are stored; others get them in float32.
    """

    def register(function: Function) -> Function:
        parameters = inspect.signature(function).parameters.values()
        implementation = Implementation(
            function,
            since,
            exact,
            stored_weights,
            values={each.name: each.default for each in parameters if each.kind is not each.KEYWORD_ONLY},
            options=frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY),
            required=tuple(each.name for each in parameters if each.default is each.empty),
        )
        for operation in operations:
            found = _IMPLEMENTATIONS.setdefault(operation, [])
            assert all(each.since != since for each in found), operation
            found.append(implementation)
            found.sort(key=lambda each: each.since)
        return function

    return register


def implementation_of(operation: str, version: int) -> Implementation | None:
    """The implementation of an operation as a specification version defines it; None if there is none."""
    found = [each for each in _IMPLEMENTATIONS.get(operation, ()) if each.since <= version]
    return found[-1] if found else None


def implemented_operations() -> dict[str, tuple[Implementation, ...]]:
    """The implementations of all operations, by name and in order of versions."""
    return {name: tuple(found) for name, found in sorted(_IMPLEMENTATIONS.items())}
