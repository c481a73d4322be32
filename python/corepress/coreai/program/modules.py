"""The parts of Core AI's library that programs need, imported when first used."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ...extras import load

_PREFIXES = ("coreai.decomposable.", "coreai.", "coreaix.")


@cache
def authoring() -> Any:
    """The module that reads and writes assets; the others need it to be imported first."""
    load("coreai", "coreai")
    return import_module("coreai.authoring")


@cache
def ir() -> Any:
    """The types, attributes and operations of programs."""
    authoring()
    return import_module("coreai._compiler.ir")


@cache
def operations_of_dialect() -> Any:
    """The classes of Core AI's operations."""
    authoring()
    return import_module("coreai._compiler.dialects.coreai")


@cache
def reader_of_constants() -> Any:
    """The function that copies a constant's bytes to an array."""
    authoring()
    bindings = import_module("coreai._compiler._mlir_libs._coreaiIR")._bindings
    return bindings.compiler.copy_constant_value_to_array


def short_name(operation: Any) -> str:
    """The name of an operation without the name of its dialect."""
    name = str(operation.name)
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name[len(prefix) :]
    return name
