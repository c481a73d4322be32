"""Core AI assets (``.aimodel``), run by the run-time of coreai-core on Linux and macOS, in a separate process."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OperationError, UnsupportedOperationError
from ..system import current
from .backend import State
from .coreai_activations import TAP, Activation, Place
from .coreai_asset import CoreAIAsset, CoreAIState, drop, first_line, require_alive
from .features import Description
from .worker_process import EndedError, WorkerProcess

# Core AI decompresses weights in every run; after so many a copy is run that has them decompressed, with equal results.
_RUNS_AS_STORED = 3
_PART_OF_MEMORY = 4  # that its weights may take
VALUES_MEMORY = 1 << 28  # bytes of intermediate results that one run returns
_MOST_VALUES = 1024  # of one run
_KEPT_BYTES = 1 << 31  # of the copies of an asset that stay ready to run
KIND, VERSION = "a Core AI program", 2


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
        self._runs = 0
        self._runs_decompressed: bool | None = None  # None before that is decided
        self._loaded(())

    def predict(self, inputs: Mapping[str, Any], state: State | None) -> dict[str, Any]:
        """Run once."""
        self._runs += 1
        if self._runs > _RUNS_AS_STORED and self._runs_decompressed is None:
            self._decompress()
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

    def _decompress(self) -> None:
        """From now on run a copy with decompressed weights, where that makes a difference and can be made."""
        self._runs_decompressed = self._may_decompress()
        stored = self._numbers.pop((), None)
        if self._runs_decompressed:
            try:
                self._loaded(())
            except (UnsupportedOperationError, ValueError):
                self._runs_decompressed = False
            else:
                if stored is not None:
                    drop(stored[0], "drop", stored[1])
                return
        if stored is not None:
            self._numbers[()] = stored

    def _may_decompress(self) -> bool:
        """Whether there are compressed weights, and room for them without their compression.

        Only where the run-time is that of the package: macOS has its own ways with compressed weights.
        """
        if sys.platform != "linux":
            return False
        size = self.asset.ask("decompressed_bytes", os.fspath(self.asset.path))
        room = min((current.memory_bytes() or 0) // _PART_OF_MEMORY, shutil.disk_usage(tempfile.gettempdir()).free // 4)
        return bool(0 < size <= room)

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
            Whether the state is left unchanged.
        """
        outputs = self._run("values", tuple(places), inputs, state, keeps_state=keeps_state)
        return [outputs[f"{TAP}{index}"] for index in range(len(places))]

    def forget(self, places: Sequence[Place]) -> None:
        """Let go of the copy of the program that returns the results at these places."""
        found = self._numbers.pop(tuple(places), None)
        if found is not None:
            drop(found[0], "drop", found[1])

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
                dense = not taps and bool(self._runs_decompressed)
                arguments = os.fspath(self.asset.path), self.function_name, taps
                number: int = process.ask("load", *arguments, decompressed=dense)
            self.asset.require_unchanged()
            known = self._numbers[taps] = process, number
        return known

    @contextmanager
    def _explained(self, caller: str) -> Iterator[None]:
        what = f"{caller}: {self.asset.path.name}, function {self.function_name}"
        try:
            yield
        except EndedError as error:
            if caller == "load":
                self.asset.require_unchanged()
                raise UnsupportedOperationError(f"{what}: Core AI ended while it made it ready ({error})") from None
            raise OperationError(
                f"{what}: Core AI ended while it ran ({error}); where inputs have open sizes, these may not fit "
                "together, else this version of coreai-core cannot run the model"
            ) from None
        except (RuntimeError, KeyError, OSError) as error:
            kind = UnsupportedOperationError if caller == "load" else OperationError
            raise kind(f"{what}: Core AI refuses it ({first_line(error)})") from error


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
