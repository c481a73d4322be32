"""Optional dependencies, and the extras that install them: no other module knows their names."""

from __future__ import annotations

import importlib
import platform
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from .errors import MissingExtraError
from .interrupts import interrupts_after


@dataclass(frozen=True)
class Extra:
    """How to install a module: the name of its package, and the extra of ours that includes it."""

    package: str
    name: str


EXTRAS = {
    "coremltools": Extra("coremltools", "coremltools"),
    "PIL": Extra("pillow", "torch"),
    "torch": Extra("torch", "torch"),
    "attrs": Extra("attrs", "torch"),
    "cattrs": Extra("cattrs", "torch"),
    "matplotlib": Extra("matplotlib", "plot"),
    "coreai": Extra("coreai-core", "coreai"),
}


def installed(module: str) -> bool:
    """Whether a module of `EXTRAS` can be imported."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return find_spec(module) is not None


def missing(module: str) -> str:
    """The message for users without a module: that it is not installed, and what to do."""
    extra = EXTRAS[module]
    if extra.name == "coremltools" and not _has_coremltools_wheel():
        version = ".".join(map(str, sys.version_info[:2]))
        return (
            f"{extra.package} is not installed, and is not available for Python {version} on {platform.system()} "
            f"{platform.machine()}; use Python 3.10 to 3.13 on macOS or on Linux x86-64"
        )
    if module == "torch" and not _has_torch_wheel():
        return f"{extra.package} is not installed, and is not available for macOS on {platform.machine()}"
    if module == "coreai" and not _has_coreai_wheel():
        version = ".".join(map(str, sys.version_info[:2]))
        return (
            f"{extra.package} is not installed, and is not available for Python {version} on {platform.system()} "
            f"{platform.machine()}; use Python 3.11 to 3.14 on macOS 26 or later (arm64) or on Linux x86-64"
        )
    return f"{extra.package} is not installed; pip install 'corepress[{extra.name}]'"


def require(function: str, module: str) -> None:
    """Raise unless a module can be imported.

    Parameters
    ----------
    function : str
        The function that needs it, which the message begins with.
    module : str
        One of `EXTRAS`.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if not installed(module):
        raise MissingExtraError(f"{function}: {missing(module)}", name=module)


def load(function: str, module: str) -> ModuleType:
    """Import a module, or raise as `require` does."""
    require(function, module)
    # While coremltools loads its native parts, it takes any exception, an interrupt too, for a missing part.
    with interrupts_after():
        return importlib.import_module(module)


def _has_torch_wheel() -> bool:
    """Whether the marker of torch in ``pyproject.toml`` applies to this machine."""
    return sys.platform != "darwin" or platform.machine() == "arm64"


def _has_coremltools_wheel() -> bool:
    """Whether the markers of coremltools in ``pyproject.toml`` apply to this machine."""
    known_system = sys.platform == "darwin" or (sys.platform == "linux" and platform.machine() == "x86_64")
    return sys.version_info < (3, 14) and known_system


def _has_coreai_wheel() -> bool:
    """Whether the markers of coreai-core in ``pyproject.toml`` apply to this machine."""
    machines = {"darwin": "arm64", "linux": "x86_64"}
    is_known = (3, 11) <= sys.version_info[:2] <= (3, 14) and machines.get(sys.platform) == platform.machine()
    return is_known and (sys.platform != "darwin" or int(platform.release().partition(".")[0]) >= 25)
