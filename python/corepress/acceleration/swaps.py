"""Functions of other libraries, replaced where they stand and put back."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class UnknownInternalError(Exception):
    """A function that is to be replaced is missing, or takes other parameters. The message says which."""


@dataclass(frozen=True)
class Internal:
    """A function of another library.

    Attributes
    ----------
    module, path : str
        Its module, and its name in it; for a method after the class and a dot.
    parameters : tuple of str
        Its parameters.
    replace : callable
        Returns its replacement, given the original.
    """

    module: str
    path: str
    parameters: tuple[str, ...]
    replace: Callable[[Callable[..., Any]], Callable[..., Any]]


class Swaps:
    """What has been replaced, and what stood there before."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any]] = []
        self._originals: dict[int, tuple[Any, Any]] = {}  # by its id: what replaces something, and that

    def replace(self, internals: Iterable[Internal]) -> None:
        """Replace all of them, or none.

        Raises
        ------
        UnknownInternalError
            If one is missing or takes other parameters.
        """
        for owner, name, old, new in [self._replacement(internal) for internal in internals]:
            self._undo.append((owner, name, old))
            self._originals[id(new)] = new, old
            setattr(owner, name, new)

    def undo(self) -> None:
        """Put back everything."""
        while self._undo:
            setattr(*self._undo.pop())
        self._originals.clear()

    def _replacement(self, internal: Internal) -> tuple[Any, str, Any, Any]:
        """Its owner, its name, what is there without replacements, and what replaces it."""
        owner, name = place_of(internal)
        found = vars(owner)[name]
        # A module that was imported since may have imported a replacement by name.
        if id(found) in self._originals:
            return owner, name, self._originals[id(found)][1], found
        bound = isinstance(found, staticmethod | classmethod)
        function = found.__func__ if bound else found
        parameters = parameters_of(function)
        if parameters != internal.parameters:
            raise UnknownInternalError(
                f"{internal.module}.{internal.path} takes {', '.join(parameters)} "
                f"instead of {', '.join(internal.parameters)}"
            )
        new = functools.wraps(function)(internal.replace(function))
        return owner, name, found, type(found)(new) if bound else new


def place_of(internal: Internal) -> tuple[Any, str]:
    """The module or class that holds a function, and its name there; `UnknownInternalError` if there is none."""
    *owners, name = internal.path.split(".")
    owner: Any = importlib.import_module(internal.module)
    for each in owners:
        owner = getattr(owner, each, None)
    if owner is None or name not in vars(owner):
        raise UnknownInternalError(f"there is no {internal.module}.{internal.path}")
    return owner, name


def parameters_of(function: Any) -> tuple[str, ...]:
    """The names of a function's parameters, or of those of an operator of torch, which has no signature."""
    schema = getattr(getattr(function, "default", None), "_schema", None)
    if schema is not None:
        return tuple(argument.name for argument in schema.arguments)
    return tuple(inspect.signature(function).parameters)


def is_known(version: str, known: Iterable[str]) -> bool:
    """Whether a version is one of those that are known, or a fix of one."""
    return any(version == each or version.startswith(f"{each}.") for each in known)
