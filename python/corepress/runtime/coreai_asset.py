"""A Core AI asset that is open in the process that runs it, and the states of its models."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coreai.format.asset import Asset
from ..errors import FormatError, OperationError
from ..extras import require
from ..suggestions import suggestion
from .coreai_activations import Shape
from .features import Description, Feature
from .worker_process import EndedError, WorkerProcess, acquire, give_back

_WORKER = "coreai_worker"


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

    def require_unchanged(self) -> None:
        """Raise `SourceChangedError` if a file changed since it was opened."""
        self._asset.require_unchanged()

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
            self.require_unchanged()
            raise FormatError(
                f"{self.path}: Core AI ended while it read the program ({error}); it is damaged, or of a newer version"
            ) from None
        except (RuntimeError, OSError) as error:
            raise FormatError(f"{self.path}: Core AI cannot read it ({first_line(error)})") from error


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
        weakref.finalize(self, drop, process, "drop_state", self.number).atexit = False

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


def require_alive(state: CoreAIState) -> None:
    """Raise OperationError if the process that has a state ended."""
    if not state.process.is_running:
        raise OperationError("the state was lost with a run that ended; make another one with make_state()")


def drop(process: WorkerProcess, request: str, number: int) -> None:
    """Let go of something in a process, if it is still there."""
    if process.is_running:
        with suppress(EndedError, KeyError):  # it is gone
            process.ask(request, number)


def first_line(error: BaseException) -> str:
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
