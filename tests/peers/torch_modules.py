"""The modules of `corepress.optimize.torch` in the place of coremltools' of the same names.

A module that corepress lacks stays coremltools' own, and so does a name that one of its modules lacks: tests say what
they need by importing it. What a test replaces in a module (`unittest.mock.patch`), it replaces in corepress'.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import types

PEER = "coremltools.optimize.torch"
OURS = "corepress.optimize.torch"


def _imported(name: str, *missing: type[Exception]) -> types.ModuleType | None:
    """A module, or None if it or what it needs is missing."""
    try:
        return importlib.import_module(name)
    except missing:
        return None


def _peer_modules() -> dict[str, types.ModuleType]:
    package = importlib.import_module(PEER)
    names = [PEER, *(info.name for info in pkgutil.walk_packages(package.__path__, PEER + "."))]
    # Some need parts of PyTorch that newer versions lack.
    found = {name: _imported(name, ImportError, AttributeError) for name in names}
    return {name: module for name, module in found.items() if module is not None}


def _with_other_names(module: types.ModuleType, peer: types.ModuleType) -> None:
    """Let a module have the names of the other one that it lacks; `dir` shows its own."""

    def find(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(peer, name)

    if "__getattr__" not in vars(module):
        module.__getattr__ = find


def replace() -> None:
    """Put the modules in place, before tests are imported."""
    peers = _peer_modules()
    placed: dict[str, types.ModuleType] = {}
    for name, peer in peers.items():
        ours = _imported(OURS + name.removeprefix(PEER), ModuleNotFoundError)
        placed[name] = peer if ours is None else ours
        if ours is not None:
            _with_other_names(ours, peer)
    for name, module in placed.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in placed and module is peers[name]:
            setattr(placed[parent], child, module)
    sys.modules["coremltools.optimize"].torch = placed[PEER]


def stand_in_for_torchvision() -> None:
    """Modules of its names, for tests that only import it."""
    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["torchvision"].datasets = sys.modules["torchvision.datasets"]
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
