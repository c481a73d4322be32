"""Libraries other than coremltools that `corepress.accelerate` replaces functions of, before or after their import.

None of them is imported for it: importing them takes seconds. What is imported already is replaced at once, the rest as
soon as it has been imported.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from .swaps import Internal, Swaps, UnknownInternalError, is_known


@dataclass(frozen=True)
class Host:
    """A library, and where its functions are replaced.

    Attributes
    ----------
    module, distribution : str
        What is imported, and the name of its package.
    known : tuple of str
        The versions whose internals are known; those that only fix them are too.
    internals : str
        The module of this package with the table of what is replaced, `INTERNALS`.
    """

    module: str
    distribution: str
    known: tuple[str, ...]
    internals: str

    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return self.module in sys.modules or find_spec(self.module) is not None


HOSTS = (
    Host("coreai_opt", "coreai-opt", ("0.4",), "coreai_opt"),
    Host("torchao", "torchao", ("0.14", "0.15", "0.16", "0.17", "0.18"), "torchao"),
)


def installed() -> list[Host]:
    """The hosts that can be imported."""
    return [host for host in HOSTS if host.is_installed()]


def replace(swaps: Swaps, hosts: Iterable[Host]) -> ImportWatch | None:
    """Replace functions of hosts, where they are imported, and watch the imports of the rest.

    A host of a version that is not known is left unchanged, with a RuntimeWarning.

    Returns
    -------
    ImportWatch or None
        To be ended before the replacements are undone.
    """
    waiting: dict[str, list[Internal]] = {}
    for host in hosts:
        version = metadata.version(host.distribution)
        if not is_known(version, host.known):
            _warn(host.distribution, f"its version is {version}; known are those of {', '.join(host.known)}")
            continue
        table: tuple[Internal, ...] = importlib.import_module(f".{host.internals}", __package__).INTERNALS
        for internal in table:
            waiting.setdefault(internal.module, []).append(internal)
    for module in [name for name in waiting if name in sys.modules]:
        _replace_those_of(swaps, module, waiting.pop(module))
    return ImportWatch(swaps, waiting) if waiting else None


def _replace_those_of(swaps: Swaps, module: str, internals: list[Internal]) -> None:
    try:
        swaps.replace(internals)
    except UnknownInternalError as failure:
        _warn(module, str(failure))


def _warn(library: str, what: str) -> None:
    text = f"accelerate: the internals of this {library} are not known, and are left unchanged: {what}"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


class ImportWatch:
    """A finder of modules that finds those that others do, and replaces functions once they have been imported."""

    def __init__(self, swaps: Swaps, waiting: dict[str, list[Internal]]) -> None:
        self._swaps = swaps
        self._waiting = waiting
        sys.meta_path.insert(0, self)

    def end(self) -> None:
        """Watch no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        self._waiting.clear()

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """What another finder finds, if it is a module that is waited for."""
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                self._follow(spec.loader)
                return spec
        return None

    def _follow(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            internals = self._waiting.pop(module.__name__, None)
            if internals:
                _replace_those_of(self._swaps, module.__name__, internals)

        loader.exec_module = exec_module
