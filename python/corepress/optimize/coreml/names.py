"""The names that coremltools gives to the operations of compressed weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ...coreml.program.graph import label_of
from ...coreml.program.program import Definition, Program
from ...coreml.program.renames import names_made, replace_names


@dataclass(frozen=True)
class NewName:
    """A constant whose name gets a suffix; if a scale is applied to it, the scaled operand gets another one."""

    definition: Definition
    suffix: str
    scaled_suffix: str | None = None


def rename(program: Program, new_names: Iterable[NewName]) -> None:
    """Rename constants and all references to them; a name that is already taken gets a number.

    Parameters
    ----------
    program : Program
        The program; its messages are changed in place.
    new_names : iterable of NewName
        The constants to rename.
    """
    functions = program.model.mlProgram.functions
    counts = {name: Counter(names_made(functions[name])) for name in functions}
    changed: dict[str, dict[str, str]] = {name: {} for name in functions}

    def suggest(function: str, operation: Any, new: str, label: str) -> None:
        old, taken = operation.outputs[0].name, counts[function]
        if taken[old] > 1:  # which one is meant would depend on the block
            return
        name, number = new, 0
        while taken[name]:
            name, number = f"{new}_{number}", number + 1
        taken[name] += 1
        changed[function][old] = name
        if "name" in operation.attributes:
            operation.attributes["name"].immediateValue.tensor.strings.values[:] = [label]

    for each in new_names:
        definition = each.definition
        operation, output, label = definition.operation, definition.output_name, label_of(definition.operation)
        if each.scaled_suffix is not None:
            for made in _operands_made_here(definition):
                suggest(definition.function, made, output + each.scaled_suffix, label + each.scaled_suffix)
        suggest(definition.function, operation, output + each.suffix, label + each.suffix)
    for name, renamed in changed.items():
        if renamed:
            replace_names(functions[name], renamed)


def _operands_made_here(definition: Definition) -> Iterator[Any]:
    """The operations of a definition's block that it takes outputs of."""
    taken = {
        binding.name
        for argument in definition.operation.inputs.values()
        for binding in argument.arguments
        if binding.WhichOneof("binding") == "name"
    }
    for operation in definition.block.operations if taken else ():
        if any(output.name in taken for output in operation.outputs):
            yield operation
