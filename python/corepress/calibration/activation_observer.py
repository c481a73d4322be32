"""Ranges of activations, taken while a model runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..arrays import as_threads
from ..coreml.format.package import Package
from ..coreml.program.graph import Function, Literal, Operation, Value
from ..coreml.program.program import Program
from ..coreml.program.quantize_pairs import observed_values
from ..extras import require
from ..runtime.opening import open_model
from ..runtime.samples import Samples, steps_of
from .activation_ranges import ActivationRange

if TYPE_CHECKING:
    from ..runtime.torch.schedule import Step, Values


_Plan = tuple[dict[str, int], dict[str, int]]
_STATE = "ranges of values: "


class RangeObserver:
    """Adds the values of a run to their ranges.

    Parameters
    ----------
    function : Function
        The function that is run.

    Attributes
    ----------
    ranges : dict of str to ActivationRange
        By the name of the value.
    """

    def __init__(self, function: Function) -> None:
        self._wanted = observed_values(function)
        self._inputs = {value.name for value in function.block.inputs} & self._wanted
        self._plans: dict[Operation, _Plan] = {}
        self._seen: set[str] = set()
        self.ranges: dict[str, ActivationRange] = {}

    def begin_run(self) -> None:
        """To be called before each run of the model: inputs of the function are counted once in each."""
        self._seen.clear()

    def __call__(self, step: Step, values: Values) -> None:
        """Add what a step took from outside and what it computed."""
        plan = self._plans.get(step.operation)
        if plan is None:
            plan = self._plans[step.operation] = self._plan(step)
        taken, computed = plan
        for name, slot in taken.items():
            if name not in self._seen:
                self._seen.add(name)
                self._add(name, values[slot])
        for name, slot in computed.items():
            self._add(name, values[slot])

    def state(self) -> dict[str, NDArray[Any]]:
        """The ranges as arrays, for `restore`."""
        found = {name: each.to_arrays() for name, each in self.ranges.items()}
        return {f"{_STATE}{what}/{name}": array for name, each in found.items() for what, array in each.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state` returned, among other arrays."""
        found: dict[str, dict[str, NDArray[Any]]] = {}
        for key, array in arrays.items():
            if key.startswith(_STATE):
                what, _, name = key.removeprefix(_STATE).partition("/")
                found.setdefault(name, {})[what] = np.array(array)
        self.ranges = {name: ActivationRange.from_arrays(each, name) for name, each in found.items()}

    def _plan(self, step: Step) -> _Plan:
        """The names and slots of what a step takes from outside, and of what it computes."""
        operation = step.operation
        taken: dict[str, int] = {}
        for parameter, slots in step.inputs.items():
            arguments = [each for each in operation.inputs[parameter] if not isinstance(each, Literal)]
            for argument, slot in zip(arguments, slots, strict=True):
                if isinstance(argument, Value) and argument.producer is None and argument.name in self._inputs:
                    taken[argument.name] = slot
        computed = {
            value.name: slot
            for value, slot in zip(operation.outputs, step.outputs, strict=True)
            if value.name in self._wanted
        }
        return taken, computed

    def _add(self, name: str, value: Any) -> None:
        if hasattr(value, "detach") and value.numel():
            self.ranges.setdefault(name, ActivationRange()).add(value.detach().cpu().numpy())


def collect_ranges(
    src: str | os.PathLike[str],
    samples: Any,
    *,
    function_name: str | None = None,
    device: str = "cpu",
    num_threads: int | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, ActivationRange]:
    """Run a model in float32 on samples, and find the ranges of the values that may be quantized.

    Parameters
    ----------
    src : path-like
        An ``.mlpackage`` with an ML program.
    samples : path-like, dict, or iterable of dict or of list of dict
        As for `corepress.coreml.calibrate`; all of them are used, each once.
    function_name : str, optional
        The function to run, for a model with several; None for its default.
    device : str
        A device of PyTorch.
    num_threads : int, optional
        Threads to use; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    progress : callable, optional
        Called with the number of samples that are done, and of all, None where that is not known.

    Returns
    -------
    dict of str to ActivationRange
        By the name of the value.

    Raises
    ------
    ValueError
        If the samples do not fit the model, or there are none.
    UnsupportedOperationError
        If the model has an operation that cannot be run here.
    MissingExtraError
        If PyTorch is not installed.
    """
    require("quantize_activations", "torch")
    as_threads("quantize_activations", num_threads)

    from ..runtime.torch.backend import function_of, load_program, require_device
    from .threads import torch_threads

    require_device(device)
    program = Program(Package.open(src))
    with open_model(src) as opened:
        named = opened.root.function(function_name)
        description = opened.root.describe(named)
    name = default_function(program, named)
    backend = load_program(program.package, program.model, name, "float32", device, description, program)
    function = function_of(program, name)
    assert function is not None
    observer = RangeObserver(function)
    given = Samples("quantize_activations", samples, description)
    done = 0
    with torch_threads(num_threads):
        for sample in given:
            state = backend.make_state()
            for inputs in steps_of(sample):
                observer.begin_run()
                arguments = description.arguments("quantize_activations", given.inputs_of(inputs))
                backend.observe(observer, arguments, state)
            done += 1
            if progress is not None:
                progress(done, given.total)
    if not done:
        raise ValueError("quantize_activations: there are no samples")
    return observer.ranges


def default_function(program: Program, named: str | None) -> str:
    """The function that is run."""
    names = sorted(program.model.mlProgram.functions)
    return named or ("main" if "main" in names or not names else names[0])
