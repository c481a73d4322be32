"""Detect changes to the files that a run reads."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from .errors import SourceChangedError

# Read once and whole, and merely opening a package in coremltools formats it anew.
MANIFEST = "Manifest.json"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class FileState(NamedTuple):
    """File attributes that change when a file is written or replaced."""

    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        """Of a file whose status is known."""
        return cls(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)


def _state(path: str) -> FileState | None:
    try:
        return FileState.of(os.stat(path))
    except OSError:
        return None


class Snapshot:
    """The state of a file, or of all files of a package, before it is read.

    Parameters
    ----------
    source : path-like
        The file or package.
    """

    def __init__(self, source: str | os.PathLike[str]) -> None:
        self.source = os.path.expanduser(source)
        self._states = self._now()

    def _now(self) -> dict[str, FileState | None]:
        if not os.path.isdir(self.source):
            return {self.source: _state(self.source)}
        if not os.path.lexists(os.path.join(self.source, MANIFEST)):  # no package; it may be as large as a disk
            return {}
        states = {}
        for folder, _, names in os.walk(self.source):
            for name in names:
                path = os.path.join(folder, name)
                states[path] = _state(path)
        states.pop(os.path.join(self.source, MANIFEST), None)
        return states

    @property
    def changed(self) -> str | None:
        """A file that changed, or None."""
        now = self._now()
        for path in (*self._states, *now):
            if path not in now or self._states.get(path) != now[path]:
                return path
        return None

    def require_unchanged(self) -> None:
        """Raise `SourceChangedError` if a file changed."""
        path = self.changed
        if path is not None:
            raise changed_error(path)


def changed_error(path: str | os.PathLike[str], what: str = "changed while it was read") -> SourceChangedError:
    """The error for a file that changed."""
    return SourceChangedError(f"{os.fspath(path)}: {what}; nothing was written. Run again once the file is complete")


def unchanged(*sources: str, at_end: bool = True) -> Callable[[_Function], _Function]:
    """Decorate a function that reads models: a failure because one changed meanwhile is a `SourceChangedError`.

    Parameters
    ----------
    *sources : str
        The parameters that may be paths of models.
    at_end : bool
        Whether a change that caused no failure is an error too; not for functions that write, which check before they
        do.
    """

    def decorate(function: _Function) -> _Function:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def checked(*arguments: Any, **options: Any) -> Any:
            given = signature.bind(*arguments, **options).arguments
            models = [given[name] for name in sources if name in given]
            snapshots = [Snapshot(model) for model in models if isinstance(model, str | os.PathLike)]
            try:
                result = function(*arguments, **options)
            except SourceChangedError:
                raise
            except (OSError, ValueError) as error:
                for path in filter(None, (snapshot.changed for snapshot in snapshots)):
                    raise changed_error(path) from error
                raise
            if at_end:
                for snapshot in snapshots:
                    snapshot.require_unchanged()
            return result

        return checked  # type: ignore[return-value]

    return decorate
