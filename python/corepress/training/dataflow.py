"""Which module or function of a model makes each tensor, and which ones take it: recorded while the model runs once.

Modules of ``torch.nn`` are taken as a whole; of all others, what they call is recorded. Nothing of this stays on the
model afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from . import parametrized

_CONTAINERS = (torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict)


@dataclass(eq=False)
class Value:
    """A tensor.

    Attributes
    ----------
    producer : Call or None
        None of the model's inputs and of parameters and constants.
    is_input : bool
        Whether it is an input of the model.
    is_float : bool
    shape : torch.Size
    consumers : list of Call
        In the order of execution; a call that takes it twice is there twice.
    returned_by : (Call, int or None), optional
        The first call of a module, not taken as a whole, that made it and returned it; of a tuple, where it is.
    """

    producer: Call | None
    is_input: bool
    is_float: bool
    shape: torch.Size
    consumers: list[Call] = field(default_factory=list)
    returned_by: tuple[Call, int | None] | None = None


@dataclass(eq=False)
class Call:
    """A call of a module or a function.

    Attributes
    ----------
    function : str
        The function's name without underscores at its ends, or "" of a module.
    name : str
        The module's name in the model.
    module : torch.nn.Module or None
    number : int
        How often the module has been called before.
    traced : bool
        False of modules that are left alone.
    arguments : dict of int or str to Value
        Tensors among the arguments themselves.
    inputs : list of Value
        All tensors taken, those in lists too.
    outputs : list of Value
    single : bool
        Whether the result is one tensor.
    begin, end : int
        How many calls had begun before it and by its end.
    """

    function: str
    name: str = ""
    module: torch.nn.Module | None = None
    number: int = 0
    traced: bool = True
    arguments: dict[int | str, Value] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    single: bool = False
    begin: int = 0
    end: int = 0

    @property
    def kind(self) -> type[torch.nn.Module] | str:
        """The module's class, before its parameters were parametrized, or the function's name."""
        return self.function if self.module is None else parametrized.class_of(self.module)


@dataclass(eq=False)
class Recording:
    """What a model did when it ran.

    Attributes
    ----------
    calls : list of Call
        Of modules that are taken as a whole, and of functions outside of them.
    containers : list of Call
        Of all other modules, with the model itself.
    failure : Exception or None
        Why it ended early; calls are those up to there.
    """

    calls: list[Call]
    containers: list[Call]
    failure: Exception | None = None

    def times(self) -> dict[torch.nn.Module, int]:
        """Return how often each module was called."""
        counted: dict[torch.nn.Module, int] = {}
        for call in (*self.calls, *self.containers):
            if call.module is not None:
                counted[call.module] = counted.get(call.module, 0) + 1
        return counted


def tensors(nested: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in nested lists, tuples and dicts."""
    if isinstance(nested, torch.Tensor):
        yield nested
    elif isinstance(nested, list | tuple):
        for each in nested:
            yield from tensors(each)
    elif isinstance(nested, dict):
        yield from tensors(list(nested.values()))


def whole_modules(model: torch.nn.Module, left_alone: Collection[str] = ()) -> dict[str, torch.nn.Module]:
    """Return the modules that are taken as a whole, by their names: those of ``torch.nn``, and those left alone.

    Parameters
    ----------
    model : torch.nn.Module
    left_alone : collection of str
        Names of modules.
    """
    found: dict[str, torch.nn.Module] = {}
    seen: set[torch.nn.Module] = set()

    def walk(module: torch.nn.Module, name: str) -> None:
        if module in seen:
            return
        seen.add(module)
        kind = parametrized.class_of(module)
        of_torch = kind.__module__.startswith(("torch.nn.", "torch.ao.nn.")) and not issubclass(kind, _CONTAINERS)
        if of_torch or name in left_alone:
            found[name] = module
            return
        for child, each in module.named_children():
            walk(each, f"{name}.{child}" if name else child)

    walk(model, "")
    return found


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.recording = Recording([], [])
        self.inside = 0  # of how many whole modules
        self._values: dict[int, Value] = {}
        self._alive: list[torch.Tensor] = []  # so that no other tensor gets the same id

    def value(self, tensor: torch.Tensor, producer: Call | None, is_input: bool = False) -> Value:
        made = Value(producer, is_input, tensor.is_floating_point(), tensor.shape)
        self._values[id(tensor)] = made
        self._alive.append(tensor)
        return made

    def begin(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keyed: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, argument in keyed:
            for tensor in tensors(argument):
                value = self._values.get(id(tensor)) or self.value(tensor, None)
                call.inputs.append(value)
                value.consumers.append(call)
                if tensor is argument:
                    call.arguments[key] = value
        call.begin = len(self.recording.calls)
        self.recording.calls.append(call)

    def end(self, call: Call, result: Any) -> None:
        call.single = isinstance(result, torch.Tensor)
        call.outputs = [self.value(tensor, call) for tensor in tensors(result)]

    def fail(self, failure: Exception) -> None:
        """Forget what has not returned: its inputs are those of nothing."""
        recording = self.recording
        open_calls = [call for call in recording.calls if call.function == "" and not call.outputs]
        for call in open_calls:
            recording.calls.remove(call)
            for value in call.inputs:
                value.consumers.remove(call)
        for call in recording.containers:
            call.end = min(call.end, len(recording.calls)) if call.end else len(recording.calls)
        recording.failure = failure

    def enter(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        keyed: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, argument in keyed:
            if isinstance(argument, torch.Tensor) and id(argument) in self._values:
                call.arguments[key] = self._values[id(argument)]
        call.begin = len(self.recording.calls)
        self.recording.containers.append(call)

    def leave(self, call: Call, result: Any) -> None:
        call.end = len(self.recording.calls)
        items = enumerate(result) if type(result) in (list, tuple) else [(None, result)]
        for item, tensor in items:
            value = self._values.get(id(tensor))
            made_inside = value is not None and value.producer is not None and value.producer.begin >= call.begin
            if value is not None and made_inside and value.returned_by is None:
                value.returned_by = (call, item)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        taken, made = (next(tensors(each), None) is not None for each in ((args, kwargs), result))
        if not self.inside and taken and made:
            call = Call(getattr(func, "__name__", "").strip("_"))
            self.begin(call, args, kwargs)
            self.end(call, result)
        return result


def record(model: torch.nn.Module, example_inputs: Any, left_alone: Collection[str] = ()) -> Recording:
    """Run a model on an example, without gradients, in evaluation mode, and return what it does.

    Where the example does not fit the model, that is what it does until it fails.

    Parameters
    ----------
    model : torch.nn.Module
        In the same mode as before afterwards.
    example_inputs : tuple, dict or torch.Tensor
        Its arguments.
    left_alone : collection of str
        Names of modules that are taken as a whole.
    """
    recorder = _Recorder()
    numbers: dict[str, int] = {}
    handles = []
    open_calls: list[Call] = []

    def before(name: str, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        recorder.inside += 1
        if recorder.inside == 1:
            call = Call("", name, module, numbers.get(name, 0), name not in left_alone)
            numbers[name] = call.number + 1
            recorder.begin(call, args, kwargs)
            open_calls.append(call)

    def after(module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        recorder.inside -= 1
        if recorder.inside == 0:
            recorder.end(open_calls.pop(), result)

    def entered(name: str, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        call = Call("", name, module, numbers.get(name, 0))
        numbers[name] = call.number + 1
        recorder.enter(call, args, kwargs)
        open_calls.append(call)

    def left(module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        recorder.leave(open_calls.pop(), result)

    whole = whole_modules(model, left_alone)
    inside = {each for module in whole.values() for each in module.modules()}
    for name, module in model.named_modules():
        if name in whole or module not in inside:
            begin, end = (before, after) if name in whole else (entered, left)
            handles.append(module.register_forward_pre_hook(functools.partial(begin, name), with_kwargs=True))
            handles.append(module.register_forward_hook(end, with_kwargs=True))
    args, kwargs = arguments_of(example_inputs)
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for tensor in tensors((args, kwargs)):
            recorder.value(tensor, None, is_input=True)
        with torch.no_grad(), recorder:
            model(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        recorder.fail(failure)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training
    return recorder.recording


def arguments_of(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments: of a tuple or list, a dict, or one value."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    if isinstance(example_inputs, list | tuple):
        return tuple(example_inputs), {}
    return (example_inputs,), {}
