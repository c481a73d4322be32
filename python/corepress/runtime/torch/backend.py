"""ML programs by PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...coreml.format.package import Package
from ...coreml.program.graph import Function, StateType, TensorType, Value
from ...coreml.program.program import Program
from ...errors import FormatError
from ..backend import State
from ..features import Description
from . import ops  # noqa: F401  registers the operations
from .binding import BoundFunction
from .constants import Constants
from .dtypes import array_of, carrier_of, tensor_of
from .module import ModuleState, ProgramModule
from .schedule import Observer


def require_device(device: str) -> None:
    """Raise ValueError if PyTorch cannot use a device here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"load: device is {device!r}, which PyTorch cannot use here ({reason}); use 'cpu'") from error


def load_program(
    package: Package,
    model: Any,
    function_name: str = "main",
    precision: str = "float16",
    device: str = "cpu",
    description: Description | None = None,
    program: Program | None = None,
) -> TorchBackend:
    """An ML program, ready to run.

    Parameters
    ----------
    package : Package
        The package, for its weight files.
    model : message
        The model with the program: the package's own, or one of its pipeline.
    function_name : str
        The function to run.
    precision : str
        "float16" rounds each result once where the program declares float16; "float32" never rounds.
    device : str
        A PyTorch device.
    description : Description, optional
        What the model says that the function takes and returns, to be compared with the program.
    program : Program, optional
        The program of the model, if it has been read already.

    Raises
    ------
    FormatError
        If the program is damaged, or the description is not that of it.
    UnsupportedOperationError
        If the program has an operation that cannot be run.
    """
    program = Program(package, model) if program is None else program
    function = function_of(program, function_name)
    if function is None:
        raise ValueError(f"load: there is no function {function_name!r}; the model has {', '.join(program.functions)}")
    constants = Constants(package, program)
    try:
        bound = BoundFunction(function, constants, rounded=precision == "float16")
    finally:
        constants.close()
    _require_types(bound)
    if description is not None:
        _require_description(bound, description)
    return TorchBackend(ProgramModule(bound).to(device), bound)


def function_of(program: Program, name: str) -> Function | None:
    """The function of this name, in the opset that it is defined for; None if there is none."""
    functions = (each for graphs in program.graphs.values() for each in graphs)
    return next((each for each in functions if each.is_default and each.name == name), None)


_NUMBERS = ("array", "image", "int64", "double")  # kinds of features that are tensors in a program


def _require_types(bound: BoundFunction) -> None:
    """Raise FormatError if a function takes what is neither a tensor of numbers nor a state of these."""
    for name, value in bound.inputs.items():
        kind = value.type.wrapped if isinstance(value.type, StateType) else value.type
        if not isinstance(kind, TensorType) or carrier_of(kind.data_type) is None:
            raise FormatError(f"the program's input {name!r} must be a tensor of numbers, or a state")


def _require_description(bound: BoundFunction, description: Description) -> None:
    """Raise FormatError if a function takes or returns other things than its description says."""
    kinds = {each.name: each.kind for each in description.inputs}
    states = [each.name for each in description.states]
    for name, value in bound.inputs.items():
        is_state = isinstance(value.type, StateType)
        if name not in (states if is_state else kinds):
            what = "state" if is_state else "input"
            raise FormatError(f"the program has the {what} {name!r}, which the model's description lacks")
        if not is_state and kinds[name] not in _NUMBERS:
            raise FormatError(f"input {name!r} is described as {kinds[name]}, but the program takes a tensor")
    for each in description.outputs:
        if each.name not in bound.outputs:
            computed = ", ".join(bound.outputs) or "none"
            raise FormatError(f"the model describes an output {each.name!r}, but computes {computed}")
        is_tensor = isinstance(bound.outputs[each.name].type, TensorType)
        if is_tensor != (each.kind not in ("dictionary", "sequence")):
            found = "a tensor" if is_tensor else "something else"
            raise FormatError(f"output {each.name!r} is described as {each.kind}, but the program computes {found}")


class TorchBackend:
    """A loaded ML program; see `corepress.runtime.backend.Backend`."""

    name = "torch"

    def __init__(self, module: ProgramModule, bound: BoundFunction) -> None:
        self.module, self.bound = module, bound
        self._inputs, self._outputs = bound.inputs, bound.outputs

    def predict(self, inputs: Mapping[str, Any], state: State | None = None) -> dict[str, Any]:
        """Run once."""
        with torch.inference_mode():
            results = self.module(self.tensors(inputs), state)
        return {name: _array(result, self._outputs[name]) for name, result in results.items()}

    def values(self, inputs: Mapping[str, Any], state: State | None = None) -> Iterator[tuple[str, Any]]:
        """Run once, and yield every intermediate result."""
        assert state is None or isinstance(state, ModuleState)
        results = self.module.values(self.tensors(inputs), state)
        while True:
            with torch.inference_mode():  # not while the caller looks at a result
                value, result = next(results, (None, None))
            if value is None:
                return
            if isinstance(result, Tensor):
                yield value.name, _array(result, value)

    def observe(self, observer: Observer, inputs: Mapping[str, Any], state: State | None = None) -> None:
        """Run once, without gradients, and call a function with each step and the values after it."""
        assert state is None or isinstance(state, ModuleState)
        with torch.inference_mode():
            self.module.observe(observer, self.tensors(inputs), state)

    def make_state(self) -> ModuleState | None:
        """A fresh state; None for a program without states."""
        return self.module.make_state() if self.module.states else None

    def tensors(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors that the module takes, of arrays by name."""
        tensors = {}
        for name, value in self._inputs.items():
            if name in inputs and isinstance(value.type, TensorType):
                array = np.asarray(inputs[name])
                if value.type.shape == () and array.shape == (1,):  # descriptions have no rank 0
                    array = array.reshape(())
                tensors[name] = tensor_of(array, value.type.data_type).to(self.module.device)
        return tensors


def _array(result: Any, value: Value) -> Any:
    if isinstance(result, Tensor) and isinstance(value.type, TensorType):
        return array_of(result, value.type.data_type)
    return result
