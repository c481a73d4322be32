"""Core AI assets (``.aimodel``), run by the run-time of coreai-core on Linux and macOS, in a process of its own."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coreai.format.asset import Asset
from ..errors import FormatError, OperationError, UnsupportedOperationError
from ..extras import require
from ..suggestions import suggestion
from .backend import State
from .coreai_activations import TAP, Activation, Place, Shape
from .features import Description, Feature
from .worker_process import EndedError, WorkerProcess, acquire, give_back

_WORKER = "coreai_worker"
VALUES_MEMORY = 1 << 28  # bytes of intermediate results that one run returns
_MOST_VALUES = 1024  # of one run
_KEPT_BYTES = 1 << 31  # of the copies of an asset that stay ready to run
KIND, VERSION = "a Core AI program", 2


class CoreAIAsset:
    """An asset whose functions are known.

    Parameters
    ----------
    path : path-like
        The asset.
    caller : str
        The function that opens it, for messages.

    Attributes
    ----------
    descriptions : dict of str to Description
        What each function takes and returns.

    Raises
    ------
    FormatError
        If it is damaged, or holds no program.
    MissingExtraError
        If coreai-core is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], caller: str = "load") -> None:
        require(caller, "coreai")
        self._asset = Asset.open(path)
        self.path = self._asset.root
        self._process: WorkerProcess | None = None
        found = self.ask("describe", os.fspath(self.path))
        if not found:
            raise FormatError(f"{self.path}: it has no functions that can be called")
        self.descriptions = {name: _description(each) for name, each in found.items()}

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self._asset.size

    def function(self, name: str | None) -> str:
        """The function of this name, or the default for None: "main", else the first.

        Raises
        ------
        ValueError
            If there is no such function.
        """
        names = list(self.descriptions)
        if name is None:
            return "main" if "main" in names else names[0]
        if name not in names:
            hint = suggestion(name, names)
            raise ValueError(f"load: function_name is {name!r}, but the functions are {', '.join(names)}{hint}")
        return name

    @property
    def process(self) -> WorkerProcess:
        """The process that runs it; another one where it has ended."""
        if self._process is None or not self._process.is_running:
            self._process = acquire(_WORKER)
            weakref.finalize(self, give_back, self._process).atexit = False
        return self._process

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Send a request to the process.

        Raises
        ------
        FormatError
            If the asset cannot be read.
        """
        try:
            return self.process.ask(name, *arguments, **options)
        except EndedError as error:
            raise FormatError(
                f"{self.path}: Core AI ended while it read the program ({error}); it is damaged, or of a newer version"
            ) from None
        except (RuntimeError, OSError) as error:
            raise FormatError(f"{self.path}: Core AI cannot read it ({_first_line(error)})") from error


class CoreAIState:
    """The state of a model between runs; it lives in the process that runs the model.

    Parameters
    ----------
    process : WorkerProcess
        That process.
    states : tuple of Feature
        Its parts.
    """

    def __init__(self, process: WorkerProcess, states: Sequence[Feature]) -> None:
        self._features = {each.name: each for each in states}
        self.process = process
        parts = {each.name: (each.dtype, each.shape or ()) for each in states}
        self.number: int = process.ask("make_state", parts)
        weakref.finalize(self, _drop, process, "drop_state", self.number).atexit = False

    def read_state(self, name: str) -> NDArray[Any]:
        """A copy of a state."""
        self._feature(name)
        found: NDArray[Any] = self._ask("read_state", self.number, name)
        return found

    def write_state(self, name: str, value: NDArray[Any]) -> None:
        """Replace a state."""
        feature, array = self._feature(name), np.asarray(value)
        if array.shape != feature.shape:
            raise ValueError(f"write_state: state {name!r} has shape {feature.shape}, the value {array.shape}")
        self._ask("write_state", self.number, name, array)

    def _feature(self, name: str) -> Feature:
        if name not in self._features:
            raise ValueError(f"there is no state {name!r}; the states are {', '.join(self._features)}")
        return self._features[name]

    def _ask(self, name: str, *arguments: Any) -> Any:
        require_alive(self)
        return self.process.ask(name, *arguments)


class CoreAIBackend:
    """Runs a function of an asset.

    Parameters
    ----------
    asset : CoreAIAsset
        The asset.
    function_name : str
        The function.

    Raises
    ------
    UnsupportedOperationError
        If it takes or returns what cannot be passed here, such as images, or the run-time cannot run it.
    """

    name = "coreai"
    module = None

    def __init__(self, asset: CoreAIAsset, function_name: str) -> None:
        self.asset, self.function_name = asset, function_name
        self.description = asset.descriptions[function_name]
        _require_tensors(asset.path, function_name, self.description)
        self._numbers: dict[tuple[Place, ...], tuple[WorkerProcess, int]] = {}
        self._activations: list[Activation] | None = None
        self._loaded(())

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""
        return self._run("predict", (), inputs, state, keeps_state=False)

    def values(self, inputs: Mapping[str, Any], state: State | None) -> Iterator[tuple[str, Any]]:
        """Run, and yield every intermediate result that depends on the inputs, in program order.

        As many runs are made as bounded memory needs; the state changes once, with the last.
        """
        groups = self.groups(self.activations, inputs)
        keeps = len(groups) * self.asset.size <= _KEPT_BYTES
        for number, group in enumerate(groups):
            is_last = number == len(groups) - 1
            found = self.tapped([each.place for each in group], inputs, state, keeps_state=not is_last)
            if not keeps:
                self.forget([each.place for each in group])
            for each, value in zip(group, found, strict=True):
                yield each.name, value

    def make_state(self) -> State | None:
        """A fresh state."""
        if not self.description.states:
            return None
        with self._explained("make_state"):
            return CoreAIState(self.asset.process, self.description.states)

    @property
    def activations(self) -> list[Activation]:
        """The intermediate results that `values` yields."""
        if self._activations is None:
            self._activations = self.asset.ask("activations", os.fspath(self.asset.path), self.function_name)
        return self._activations

    def tapped(
        self, places: Sequence[Place], inputs: Mapping[str, Any], state: State | None, *, keeps_state: bool = False
    ) -> list[NDArray[Any]]:
        """The intermediate results at some places, of one run.

        Parameters
        ----------
        places : sequence of tuple of int
            Places of values of the function's block; see `Activation`.
        inputs, state
            As for `predict`.
        keeps_state : bool
            Whether the state is left as it is.
        """
        outputs = self._run("values", tuple(places), inputs, state, keeps_state=keeps_state)
        return [outputs[f"{TAP}{index}"] for index in range(len(places))]

    def forget(self, places: Sequence[Place]) -> None:
        """Let go of the copy of the program that returns the results at these places."""
        found = self._numbers.pop(tuple(places), None)
        if found is not None:
            _drop(found[0], "drop", found[1])

    def groups(
        self, activations: Sequence[Activation], inputs: Mapping[str, Any], memory: int = VALUES_MEMORY
    ) -> list[list[Activation]]:
        """Activations in order, in as few groups as keep their bytes within a limit; one that exceeds it is alone.

        Sizes that only a run decides are taken for the largest that an input has along such an axis.
        """
        unknown = max(
            (
                size
                for each in self.description.inputs
                for size, (low, high) in zip(np.shape(inputs[each.name]), each.ranges, strict=False)
                if low != high  # each.ranges is empty where no size is open
            ),
            default=1,
        )
        groups: list[list[Activation]] = []
        room = 0
        for each in activations:
            size = prod(unknown if length is None else length for length in each.shape) * 4
            if not groups or size > room or len(groups[-1]) == _MOST_VALUES:
                groups.append([])
                room = memory
            groups[-1].append(each)
            room -= size
        return groups

    def _run(
        self, caller: str, taps: tuple[Place, ...], inputs: Mapping[str, Any], state: State | None, *, keeps_state: bool
    ) -> dict[str, Any]:
        if state is not None:
            assert isinstance(state, CoreAIState)
            require_alive(state)
        process, number = self._loaded(taps)
        held = None if state is None else state
        if held is not None and held.process is not process:
            raise ValueError(f"{caller}: state is that of another model; pass what make_state() of this one returned")
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        with self._explained(caller):
            found: dict[str, Any] = process.ask(
                "run", number, arrays, None if held is None else held.number, keeps_state=keeps_state
            )
        return found

    def _loaded(self, taps: tuple[Place, ...]) -> tuple[WorkerProcess, int]:
        """The process, and its number of the function that returns some intermediate results too."""
        process = self.asset.process
        known = self._numbers.get(taps)
        if known is None or known[0] is not process:
            with self._explained("load"):
                number: int = process.ask("load", os.fspath(self.asset.path), self.function_name, taps)
            known = self._numbers[taps] = process, number
        return known

    @contextmanager
    def _explained(self, caller: str) -> Iterator[None]:
        what = f"{caller}: {self.asset.path.name}, function {self.function_name}"
        try:
            yield
        except EndedError as error:
            if caller == "load":
                raise UnsupportedOperationError(f"{what}: Core AI ended while it made it ready ({error})") from None
            raise OperationError(
                f"{what}: Core AI ended while it ran ({error}); where inputs have open sizes, these may not fit "
                "together, else this version of coreai-core cannot run the model"
            ) from None
        except (RuntimeError, KeyError, OSError) as error:
            kind = UnsupportedOperationError if caller == "load" else OperationError
            raise kind(f"{what}: Core AI refuses it ({_first_line(error)})") from error


def require_alive(state: CoreAIState) -> None:
    """Raise OperationError if the process that has a state ended."""
    if not state.process.is_running:
        raise OperationError("the state was lost with a run that ended; make another one with make_state()")


def _drop(process: WorkerProcess, request: str, number: int) -> None:
    """Let go of something in a process, if it is still there."""
    if process.is_running:
        with suppress(EndedError, KeyError):  # it is gone
            process.ask(request, number)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _description(found: Mapping[str, Any]) -> Description:
    features = {title: tuple(_feature(*each) for each in values) for title, values in found.items()}
    return Description(features["inputs"], features["outputs"], features["states"])


def _feature(name: str, dtype: str, shape: Shape) -> Feature:
    if not dtype:
        return Feature(name, "image")
    is_open = None in shape
    return Feature(
        name,
        "array",
        dtype,
        tuple(1 if size is None else size for size in shape),
        ranges=tuple((1, None) if size is None else (size, size) for size in shape) if is_open else (),
    )


def _require_tensors(path: Path, function: str, description: Description) -> None:
    for title in ("input", "output", "state"):
        for each in getattr(description, f"{title}s"):
            if each.kind != "array":
                raise UnsupportedOperationError(
                    f"load: {path.name}, function {function}: {title} {each.name!r} is an image or another value that "
                    "only the run-time of macOS takes"
                )
    for each in description.states:
        if any(low != high for low, high in each.ranges):
            raise UnsupportedOperationError(
                f"load: {path.name}, function {function}: state {each.name!r} has an open size: {each.allowed}"
            )
