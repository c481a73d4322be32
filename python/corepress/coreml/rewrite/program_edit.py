"""Replace a weight's constant operations in a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..format.schema import Operation
from ..format.values import Tensor, type_message
from ..operations import OperationForm, Output
from ..program.program import Definition, Program
from ..program.storage import steps
from ..program.weights import Weight


class Installation:
    """Puts new forms of weights into a program.

    Definitions change at once; other operations are added and removed by `finish`, in one walk through each block:
    searching thousands of operations for each weight would take longer than compressing it.

    Parameters
    ----------
    program : Program
        The program; it is changed in place.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._producers: dict[Definition, list[Any]] = {}
        self._unused: set[Definition] = set()

    def install(self, weight: Weight, form: OperationForm, store: Callable[[Tensor], Any]) -> set[Definition]:
        """Store every definition of a weight in a new form, and drop the operations that only it was built on.

        Outputs and ``name`` attributes of the definitions are kept; operations that the form builds on precede each.

        Parameters
        ----------
        weight : Weight
            The weight to store in a new form.
        form : OperationForm
            Its new form.
        store : callable
            Makes a ``Value`` from a tensor; called once for each.

        Returns
        -------
        set of Definition
            The definitions that are changed or removed.
        """
        values = {tensor: store(tensor) for tensor in form.tensors()}
        gone: set[Definition] = set()
        for definition in weight.definitions:
            names = self._make_producers(definition, form, values)
            _fill(definition.operation, form, values, names)
            gone.add(definition)
        for definition in weight.definitions:
            for producer in list(steps(definition))[-2::-1]:  # users before what they use
                used = producer.consumers or producer.feeds_output or any(user not in gone for user in producer.users)
                if not used and producer not in gone:
                    self._unused.add(producer)
                    gone.add(producer)
        return gone

    def finish(self) -> None:
        """Insert the new operations and remove the old ones."""
        changed = {id(definition.operation): definition for definition in (*self._producers, *self._unused)}
        for block in {id(definition.block): definition.block for definition in changed.values()}.values():
            places = [(index, changed.get(id(operation))) for index, operation in enumerate(block.operations)]
            for index, definition in reversed(places):
                if definition is None:
                    continue
                if definition in self._unused:
                    del block.operations[index]
                for producer in reversed(self._producers.get(definition, ())):
                    block.operations.insert(index, producer)

    def _make_producers(
        self, definition: Definition, form: OperationForm, values: Mapping[Tensor, Any]
    ) -> dict[Output, str]:
        """Make the operations that a form builds on; return the names of the outputs it takes."""
        names: dict[OperationForm, list[str]] = {}
        outputs: dict[Output, str] = {}
        for each in form.chain():
            outputs.update({given: names[given.form][given.index] for given in _outputs(each)})
            if each is form:
                break
            name = _new_name(self._program, definition, each)
            count = len(each.outputs)
            names[each] = [name] if count == 1 else [f"{name}_{index}" for index in range(count)]
            self._program.names[definition.function].update(names[each])
            operation = Operation()
            for output, (data_type, shape) in zip(names[each], each.outputs, strict=True):
                operation.outputs.add(name=output).type.CopyFrom(type_message(data_type, shape))
            if "name" in definition.operation.attributes:
                operation.attributes["name"].CopyFrom(definition.operation.attributes["name"])
                operation.attributes["name"].immediateValue.tensor.strings.values[:] = [name]
            _fill(operation, each, values, outputs)
            self._producers.setdefault(definition, []).append(operation)
        return outputs


def _outputs(form: OperationForm) -> list[Output]:
    return [given for given in form.parameters.values() if isinstance(given, Output)]


def _new_name(program: Program, definition: Definition, form: OperationForm) -> str:
    """A name that no value of the function has, with or without the number of an output appended."""
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
