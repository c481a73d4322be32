"""The machine, build and versions that a measurement was made with."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from .. import system
from .._core import __version__, compiler, simd_level, simd_levels


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, by the names they have in the package index."""
    found = ((package, list(metadata.distributions(name=package))) for package in packages)
    return {package: distributions[0].version for package, distributions in found if distributions}


def describe_machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Machine, build and versions as a dict for JSON; `packages` are listed in addition to corepress and NumPy."""
    return {
        "system": platform.platform(aliased=True),
        "architecture": platform.machine(),
        "cpu": system.current.cpu_name(),
        "cpus": system.current.cpus(),
        "memory_bytes": system.current.memory_bytes(),
        "simd_level": simd_level(),
        "simd_levels": list(simd_levels()),
        "compiler": compiler,
        "python": platform.python_version(),
        "versions": {"corepress": __version__, **versions(("numpy", *packages))},
    }
