"""A function of an ML program as a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...coreml.program.graph import StateType, TensorType, Value
from .binding import BoundFunction
from .dtypes import array_of, carrier_of, to_carrier, widened
from .limits import limited
from .schedule import OBSERVER, Observer, Step, Values


class StateCell:
    """The current value of one state."""

    def __init__(self, name: str, kind: TensorType, device: torch.device) -> None:
        try:
            shape = limited(size or 1 for size in kind.shape or ())
        except ValueError as error:
            raise ValueError(f"state {name!r}: {error}") from None
        self.type = kind
        self.value = torch.zeros(shape, dtype=carrier_of(kind.data_type), device=device)


class ModuleState:
    """The states of a program between runs; all zeros at first."""

    def __init__(self, kinds: Mapping[str, StateType], device: torch.device) -> None:
        self.cells = {name: StateCell(name, kind.wrapped, device) for name, kind in kinds.items()}

    def read_state(self, name: str) -> Any:
        """A copy of a state, as an array of its type."""
        cell = self._cell(name)
        return array_of(cell.value, cell.type.data_type).copy()

    def write_state(self, name: str, value: Any) -> None:
        """Replace a state.

        Raises
        ------
        ValueError
            If there is no such state, or its shape is another one.
        """
        cell = self._cell(name)
        tensor = torch.as_tensor(value)
        if tensor.shape != cell.value.shape:
            raise ValueError(f"write_state: {name} has shape {tuple(cell.value.shape)}, not {tuple(tensor.shape)}")
        cell.value = to_carrier(tensor.to(cell.value.device), cell.type.data_type).clone()

    def _cell(self, name: str) -> StateCell:
        if name not in self.cells:
            raise ValueError(f"the model has no state {name!r}; it has {', '.join(self.cells) or 'none'}")
        return self.cells[name]


class ProgramModule(nn.Module):
    """A function of an ML program as a module.

    Weights are parameters under their names in the program, in their stored type; they are widened to float32 where
    they are used. Inputs and results are tensors by name; all floating-point tensors are float32.

    Parameters
    ----------
    bound : BoundFunction
        The function.
    """

    def __init__(self, bound: BoundFunction) -> None:
        super().__init__()
        self._bound = bound
        self._template = list(bound.template)
        for name, tensor in bound.tensors.items():
            self._parameters[name] = nn.Parameter(tensor)
        self._weights = sorted(bound.weights.items())
        self._inputs = [(name, bound.slot(value), value.type) for name, value in bound.inputs.items()]
        self.device = torch.device("cpu")
        self._outputs = [(name, bound.slot(value)) for name, value in bound.outputs.items()]
        self.states = {name: kind for name, _, kind in self._inputs if isinstance(kind, StateType)}
        bound.tensors.clear()

    def forward(self, inputs: Mapping[str, Tensor], state: ModuleState | None = None) -> dict[str, Any]:
        """Compute the outputs by name.

        Parameters
        ----------
        inputs : dict of str to torch.Tensor
            Inputs by name.
        state : ModuleState, optional
            From `make_state`, for a function with states.
        """
        values = self._start(inputs, state)
        self._bound.schedule.run(values)
        return {name: self._result(values[slot]) for name, slot in self._outputs}

    def observe(
        self, observer: Observer, inputs: Mapping[str, Tensor], state: ModuleState | None = None
    ) -> dict[str, Any]:
        """Like `forward`, but call a function with each step and the values after it, nested ones included."""
        values = self._start(inputs, state)
        values[OBSERVER] = observer
        self._bound.schedule.run(values)
        return {name: self._result(values[slot]) for name, slot in self._outputs}

    def values(self, inputs: Mapping[str, Tensor], state: ModuleState | None = None) -> Iterator[tuple[Value, Any]]:
        """Run, and yield each result as it is computed, those of nested blocks included."""
        found: list[tuple[Value, Any]] = []

        def collect(step: Step, values: Values) -> None:
            for value, slot in zip(step.operation.outputs, step.outputs, strict=True):
                found.append((value, values[slot]))

        values = self._start(inputs, state)
        values[OBSERVER] = collect
        for _ in self._bound.schedule.run_observed(values):
            yield from found
            found.clear()

    def make_state(self) -> ModuleState:
        """States of zeros."""
        return ModuleState(self.states, self.device)

    def _start(self, inputs: Mapping[str, Tensor], state: ModuleState | None) -> Values:
        values = list(self._template)
        parameters = self._parameters
        for slot, name in self._weights:
            values[slot] = parameters[name]
        for name, slot, kind in self._inputs:
            if isinstance(kind, StateType):
                if state is None:
                    raise ValueError(f"the model has a state {name!r}: pass one from make_state()")
                values[slot] = state.cells[name]
            elif name not in inputs:
                raise ValueError(f"input {name!r} is missing")
            else:
                tensor = inputs[name]
                values[slot] = to_carrier(tensor, kind.data_type) if isinstance(kind, TensorType) else tensor
        return values

    def _result(self, value: Any) -> Any:
        return widened(value) if isinstance(value, Tensor) else value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ProgramModule:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # PyTorch does not annotate it
        self.device = fn(torch.empty(0)).device
        self._template = [each.to(self.device) if isinstance(each, Tensor) else each for each in self._template]
        return self
