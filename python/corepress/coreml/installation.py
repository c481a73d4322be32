"""Putting chains of constant operations into a program, in place of those that stand there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .operations import OperationForm, Output
from .program import Definition, Program, Weight
from .schema import Operation
from .storage import steps
from .values import Tensor, type_message


def install(program: Program, weight: Weight, form: OperationForm, store: Callable[[Tensor], Any]) -> set[Definition]:
    """Turn every definition of a weight into a form, and take out the operations that only it built on.

    Outputs and ``name`` attributes of the definitions stay; operations that the form builds on are put before each.

    Parameters
    ----------
    program : Program
        The program; it is changed in place.
    weight : Weight
        What to store anew.
    form : OperationForm
        Its new form.
    store : callable
        Makes a ``Value`` of a tensor; called once for each.

    Returns
    -------
    set of Definition
        The definitions that changed or are gone.
    """
    values = {tensor: store(tensor) for tensor in form.tensors()}
    gone: set[Definition] = set()
    for definition in weight.definitions:
        names = _insert_producers(program, definition, form, values)
        _fill(definition.operation, form, values, names)
        gone.add(definition)
    for definition in weight.definitions:
        _remove_unused(definition, gone)
    return gone


def _insert_producers(
    program: Program, definition: Definition, form: OperationForm, values: Mapping[Tensor, Any]
) -> dict[Output, str]:
    """Put the operations that a form builds on before a definition; return the names of the outputs it takes."""
    names: dict[OperationForm, list[str]] = {}
    outputs: dict[Output, str] = {}
    place = _place(definition)
    for each in form.chain():
        outputs.update({given: names[given.form][given.index] for given in _outputs(each)})
        if each is form:
            break
        name = _new_name(program, definition, each)
        names[each] = [name] if len(each.outputs) == 1 else [f"{name}_{index}" for index in range(len(each.outputs))]
        program.names[definition.function].update(names[each])
        definition.block.operations.insert(place, Operation())
        operation = definition.block.operations[place]
        for output, (data_type, shape) in zip(names[each], each.outputs, strict=True):
            operation.outputs.add(name=output).type.CopyFrom(type_message(data_type, shape))
        if "name" in definition.operation.attributes:
            operation.attributes["name"].CopyFrom(definition.operation.attributes["name"])
            operation.attributes["name"].immediateValue.tensor.strings.values[:] = [name]
        _fill(operation, each, values, outputs)
        place += 1
    return outputs


def _outputs(form: OperationForm) -> list[Output]:
    return [given for given in form.parameters.values() if isinstance(given, Output)]


def _new_name(program: Program, definition: Definition, form: OperationForm) -> str:
    """A name that no value of the function has, nor with the number of an output after it."""
    base = f"{definition.output_name}_{form.type.removeprefix('constexpr_')}"
    taken, name, number = program.names[definition.function], base, 1
    while not taken.isdisjoint([name, *(f"{name}_{index}" for index in range(len(form.outputs)))]):
        number += 1
        name = f"{base}_{number}"
    return name


def _fill(operation: Any, form: OperationForm, values: Mapping[Tensor, Any], names: Mapping[Output, str]) -> None:
    operation.type = form.type
    operation.ClearField("inputs")
    for name in [name for name in operation.attributes if name != "name"]:
        del operation.attributes[name]
    for name, given in form.parameters.items():
        if isinstance(given, Output):
            operation.inputs[name].arguments.add().name = names[given]
        elif form.in_inputs:
            operation.inputs[name].arguments.add().value.CopyFrom(values[given])
        else:
            operation.attributes[name].CopyFrom(values[given])


def _place(definition: Definition) -> int:
    """Index of a definition's operation in its block."""
    operations = definition.block.operations
    return next(
        index
        for index, operation in enumerate(operations)
        if operation.outputs and operation.outputs[0].name == definition.output_name
    )


def _remove_unused(definition: Definition, gone: set[Definition]) -> None:
    """Take out what a definition built on and nothing else uses."""
    for producer in list(steps(definition))[-2::-1]:  # users before what they use
        used = producer.consumers or producer.feeds_output or any(user not in gone for user in producer.users)
        if not used and producer not in gone:
            del producer.block.operations[_place(producer)]
            gone.add(producer)
