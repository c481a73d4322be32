"""Names of constants: changing them, and finding changes made by another tool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..format.package import Package
from .graph import is_definition
from .program import Program, programs_of


def blocks_of(function: Any) -> Iterator[Any]:
    """The blocks of a function and all blocks in them."""
    pending = list(function.block_specializations.values())
    while pending:
        block = pending.pop()
        yield block
        pending.extend(nested for operation in block.operations for nested in operation.blocks)


def names_made(function: Any) -> Iterator[str]:
    """Every name that a value of a function gets: of its inputs, of its blocks' and of the outputs of operations."""
    yield from (given.name for given in function.inputs)
    for block in blocks_of(function):
        yield from (given.name for given in block.inputs)
        yield from (output.name for operation in block.operations for output in operation.outputs)


def replace_names(function: Any, renamed: Mapping[str, str]) -> None:
    """Rename values of a function, and all references to them.

    Parameters
    ----------
    function : message
        The function, which is changed in place.
    renamed : dict of str to str
        New names by old ones.
    """
    for block in blocks_of(function):
        for operation in block.operations:
            for output in operation.outputs:
                output.name = renamed.get(output.name, output.name)
            for argument in operation.inputs.values():
                for binding in argument.arguments:
                    if binding.WhichOneof("binding") == "name" and binding.name in renamed:
                        binding.name = renamed[binding.name]
        block.outputs[:] = [renamed.get(name, name) for name in block.outputs]


def read_renamed(package: Package, source: Program) -> Program:
    """The program of a package, with the names that its constants have in the program it was made from."""
    program = Program(package)
    return Program(package, program.model) if restore_names(source.model, program.model) else program


def restore_names(source: Any, model: Any) -> bool:
    """Give the constants of a model the names that they have in its source.

    coremltools renames what it compresses. The operations that use the constants show which of them correspond.

    Parameters
    ----------
    source : message
        The model that was compressed.
    model : message
        The result; its names are changed in place.

    Returns
    -------
    bool
        Whether any name changed.
    """
    changed = False
    others = dict(programs_of(model))
    for prefix, program in programs_of(source):
        functions = others[prefix].mlProgram.functions if prefix in others else {}
        for name in program.mlProgram.functions:
            if name in functions:
                renamed = _renamed(program.mlProgram.functions[name], functions[name])
                replace_names(functions[name], renamed)
                changed |= bool(renamed)
    return changed


def _renamed(function: Any, other: Any) -> dict[str, str]:
    """The names of a function's constants by those in another function that differs only in constants."""
    ours, theirs = set(names_made(function)), set(names_made(other))
    constants, other_constants = _constants(function), _constants(other)
    found: dict[str, set[str]] = {}
    for opset in function.block_specializations:
        if opset not in other.block_specializations:
            continue
        pairs = _names_used(function.block_specializations[opset], other.block_specializations[opset])
        for name, other_name in pairs:
            if name in constants and other_name in other_constants and name != other_name:
                found.setdefault(other_name, set()).add(name)
    renamed = {other_name: names.pop() for other_name, names in found.items() if len(names) == 1}
    wanted = Counter(renamed.values())
    return {
        other_name: name
        for other_name, name in renamed.items()
        if name not in theirs and other_name not in ours and wanted[name] == 1
    }


def _constants(function: Any) -> set[str]:
    return {
        output.name
        for block in blocks_of(function)
        for operation in block.operations
        if is_definition(operation)
        for output in operation.outputs
    }


def _names_used(first: Any, second: Any) -> Iterator[tuple[str, str]]:
    """The names that corresponding operations of two blocks, and of the blocks in them, refer to."""
    pending = [(first, second)]
    while pending:
        block, other = pending.pop()
        yield from zip(block.outputs, other.outputs, strict=False)
        for operation, same in zip(_other_operations(block), _other_operations(other), strict=False):
            if operation.type != same.type:
                break  # what follows does not correspond
            for operand in operation.inputs.keys() & same.inputs.keys():
                yield from zip(_names(operation.inputs[operand]), _names(same.inputs[operand]), strict=False)
            pending.extend(zip(operation.blocks, same.blocks, strict=False))


def _other_operations(block: Any) -> Iterator[Any]:
    return (operation for operation in block.operations if not is_definition(operation))


def _names(argument: Any) -> list[str]:
    return [each.name if each.WhichOneof("binding") == "name" else "" for each in argument.arguments]
