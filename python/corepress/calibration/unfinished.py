"""What an interrupted calibration has done so far, in a folder next to the file that it will write."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .. import system
from ..errors import FormatError
from ..outputs import write_output
from .tensor_file import TensorFile, write_tensors

_STATE = "state.json"
CHECKPOINT_SECONDS, CHECKPOINT_SHARE = 20.0, 20  # between two, at least; and of the time that the last one took


class Unfinished:
    """Keeps the arrays of finished steps, on the disk where there is an output, else in memory.

    Parameters
    ----------
    output : pathlib.Path or None
        The file that the run will write.
    fingerprint : str
        What identifies the run: the same model, samples and options.
    resume : bool
        Whether to continue what an earlier run with this fingerprint has begun.
    """

    def __init__(self, output: Path | None, fingerprint: str, *, resume: bool) -> None:
        self.folder = None if output is None else folder_of(output)
        self._fingerprint = fingerprint
        self._arrays: dict[str, dict[str, NDArray[Any]]] = {}
        self._documents: dict[str, Any] = {}
        if self.folder is None:
            return
        if not (resume and self._is_ours()):
            if self.folder.exists() and not (self.folder / _STATE).is_file():
                raise FileExistsError(f"calibrate: {self.folder} exists, and no calibration made it; remove it")
            self.remove()
            self.folder.mkdir()
            write_output(self.folder / _STATE, json.dumps({"fingerprint": fingerprint}))

    def _is_ours(self) -> bool:
        assert self.folder is not None
        try:
            state = json.loads((self.folder / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(isinstance(state, dict) and state.get("fingerprint") == self._fingerprint)

    def write(self, name: str, arrays: Mapping[str, NDArray[Any]], document: Any = None) -> None:
        """Keep arrays and plain values under a name."""
        if self.folder is None:
            self._arrays[name], self._documents[name] = dict(arrays), document
        else:
            write_tensors(self.folder / f"{name}.safetensors", arrays, {"document": json.dumps(document)})

    def read(self, name: str) -> tuple[Mapping[str, NDArray[Any]], Any] | None:
        """What is kept under a name: arrays, mapped, and plain values; None if there is nothing."""
        if self.folder is None:
            return (self._arrays[name], self._documents[name]) if name in self._arrays else None
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return None
        try:
            file = TensorFile(path)
            return {each: file.read(each) for each in file.names}, json.loads(file.metadata["document"])
        except (FormatError, KeyError, ValueError):
            return None  # it is made again

    def forget(self, name: str) -> None:
        """Remove what is kept under a name."""
        self._arrays.pop(name, None)
        self._documents.pop(name, None)
        if self.folder is not None:
            (self.folder / f"{name}.safetensors").unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything."""
        if self.folder is not None and self.folder.is_dir():
            system.current.remove_tree(self.folder)


class Checkpoints:
    """When to write what is done so far: not more often than its cost allows."""

    def __init__(self, unfinished: Unfinished) -> None:
        self._wanted = unfinished.folder is not None
        self._next = time.monotonic() + CHECKPOINT_SECONDS

    @contextmanager
    def now(self) -> Iterator[bool]:
        """Whether it is time; what is done in this context is what it costs."""
        started = time.monotonic()
        is_due = self._wanted and started >= self._next
        yield is_due
        if is_due:
            ended = time.monotonic()
            self._next = ended + max(CHECKPOINT_SECONDS, CHECKPOINT_SHARE * (ended - started))


def folder_of(output: Path) -> Path:
    """Where a run keeps what it has done so far."""
    return output.parent / f"{output.name}.unfinished"
