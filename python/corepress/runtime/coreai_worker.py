"""Runs Core AI assets in a separate process, which `coreai_backend` starts and talks to.

Apple's run-time ends the process, without an exception, where a program or the shapes of its inputs are not what it
expects, and prints on standard output: neither may happen to the process of a user.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import system
from ..coreai.decompressor import decompress
from ..coreai.program.program import Program
from .coreai_activations import TAP, Place, activations_of, functions_of
from .coreai_taps import values_at
from .exchange import receive, send


class _Loaded:
    """A function that is ready to run, and what must stay open until it is dropped."""

    def __init__(self, opened: Any, function: Any) -> None:
        self.opened, self.function = opened, function


class Worker:
    """What the other process can ask for; each method is a request."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._numbers = iter(range(1 << 62))
        self._loaded: dict[int, _Loaded] = {}
        self._states: dict[int, dict[str, Any]] = {}

    def describe(self, path: str) -> dict[str, Any]:
        """The functions of an asset, and what they take and return."""
        return functions_of(_program(path))

    def activations(self, path: str, function: str) -> list[Any]:
        """The intermediate results of a function that depend on its inputs."""
        return activations_of(_program(path), function)

    def decompressed_bytes(self, path: str) -> int:
        """Bytes of the weights that an asset stores compressed, once they are not."""
        weights = [weight for weight in Program(path).weights if weight.is_compressed]
        return sum(weight.size * (4 if weight.dtype == "float32" else 2) for weight in weights)

    def load(self, path: str, function: str, taps: Sequence[Place], *, decompressed: bool = False) -> int:
        """Make a function ready to run; `taps` are results that it returns as well, of weights as they are stored."""
        from coreai.authoring import AIModelAsset

        folder = None
        try:
            if taps or decompressed:
                folder = tempfile.mkdtemp(suffix=".tapped")
                copy = Path(folder) / "copy.aimodel"
                if decompressed:
                    decompress(path, copy)
                else:
                    _add_taps(path, function, taps, copy)
                path = os.fspath(copy)
            opened = AIModelAsset.load(path).executable()
            model = self._loop.run_until_complete(opened.__aenter__())
        finally:
            if folder is not None:  # lowering has made its own copy
                shutil.rmtree(folder, ignore_errors=True)
        number = next(self._numbers)
        self._loaded[number] = _Loaded(opened, model.load_function(function))
        return number

    def drop(self, number: int) -> None:
        """Let a function go."""
        found = self._loaded.pop(number)
        found.function = None
        self._loop.run_until_complete(found.opened.__aexit__(None, None, None))

    def run(
        self, number: int, inputs: Mapping[str, NDArray[Any]], state: int | None, *, keeps_state: bool = False
    ) -> dict[str, NDArray[Any]]:
        """Run a function once; with `keeps_state` on a copy of the state."""
        from coreai.runtime import NDArray as Array

        function = self._loaded[number].function
        given = {name: Array(_typed(value, function.desc.input_descriptor(name))) for name, value in inputs.items()}
        states = {} if state is None else self._states[state]
        if keeps_state:
            states = {name: Array(np.array(each.numpy())) for name, each in states.items()}
        outputs = self._loop.run_until_complete(function(given, state=states))
        return {name: _plain(each.numpy()) for name, each in outputs.items()}

    def make_state(self, parts: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
        """A state of zeros, of parts with types and shapes."""
        from coreai.runtime import NDArray as Array

        number = next(self._numbers)
        self._states[number] = {name: Array(np.zeros(shape, _dtype(kind))) for name, (kind, shape) in parts.items()}
        return number

    def read_state(self, number: int, name: str) -> NDArray[Any]:
        """A part of a state."""
        return _plain(self._states[number][name].numpy())

    def write_state(self, number: int, name: str, value: NDArray[Any]) -> None:
        """Replace a part of a state."""
        from coreai.runtime import NDArray as Array

        dtype = self._states[number][name].numpy().dtype
        self._states[number][name] = Array(np.ascontiguousarray(value, dtype))

    def drop_state(self, number: int) -> None:
        """Let a state go."""
        self._states.pop(number, None)

    def clear(self) -> int:
        """Let everything go; returns the bytes of memory that the process keeps, 0 where that is not known."""
        self._states.clear()
        for number in list(self._loaded):
            self.drop(number)
        return system.current.resident_memory() if system.current.measures_peaks else 0


def _program(path: str) -> Any:
    from coreai.authoring import AIModelAsset

    return AIModelAsset.load(path).program


def _add_taps(path: str, function: str, taps: Sequence[Place], copy: Path) -> None:
    """Write a copy of an asset whose function also returns some of its intermediate results."""
    from coreai._compiler.ir import Location

    program = _program(path)
    module = program._module._mlir_module
    graph = program._get_graph(function)
    with module.context, Location.unknown():
        tapped = [(f"{TAP}{index}", value) for index, value in enumerate(values_at(program, graph, taps))]
        graph.outputs_spec = [*graph.outputs_spec, *tapped]
        program.save_asset(copy)


def _dtype(name: str) -> np.dtype[Any]:
    """A type by name, those that are not NumPy's own too."""
    import ml_dtypes  # noqa: F401  (which makes them known)

    return np.dtype(name)


def _typed(value: NDArray[Any], descriptor: Any) -> NDArray[Any]:
    from coreai.runtime._ndarray import _RUNTIME_TO_NUMPY_DTYPE as NAMES

    return np.ascontiguousarray(value, np.dtype(NAMES.get(descriptor.dtype, descriptor.dtype)))


def _plain(value: NDArray[Any]) -> NDArray[Any]:
    """A copy, in a type that NumPy has itself and that holds all values."""
    if value.dtype.isbuiltin != 1:
        name = value.dtype.name
        value = value.astype(np.uint8 if name.startswith("uint") else np.int8 if name[:3] == "int" else np.float32)
    return np.array(value, order="C")


def _answers(worker: Worker, stream: Any) -> Iterator[tuple[Any, ...]]:
    while True:
        try:
            name, arguments, options = receive(stream)
        except EOFError:
            return
        try:
            yield True, getattr(worker, name)(*arguments, **options)
        except Exception as error:
            yield False, type(error).__name__, str(error)


def main() -> None:
    """Answer requests from standard input until it ends."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the run-time prints
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for answer in _answers(Worker(), requests):
            send(answers, answer)
    except OSError:
        pass  # the other process has ended
    finally:
        shutil.rmtree(sys.argv[1], ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)  # nothing is left to do, and the run-time's threads need not be waited for
