"""What a measurement was made on: machine, build, and versions of everything that took part."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import _core


def cpus() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor as it calls itself, or its architecture where it does not."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        name = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        return name or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Memory of the machine, or None where the system does not tell."""
    names = getattr(os, "sysconf_names", {})
    if "SC_PAGE_SIZE" not in names or "SC_PHYS_PAGES" not in names:
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed, by the names they have in the package index."""
    found = ((package, list(metadata.distributions(name=package))) for package in packages)
    return {package: distributions[0].version for package, distributions in found if distributions}


def describe_machine(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Machine, build and versions as a dict for JSON; `packages` are named beside corepress and NumPy."""
    return {
        "system": platform.platform(aliased=True),
        "architecture": platform.machine(),
        "cpu": cpu_name(),
        "cpus": cpus(),
        "memory_bytes": memory_bytes(),
        "simd_level": _core.simd_level(),
        "simd_levels": list(_core.simd_levels()),
        "compiler": _core.compiler,
        "python": platform.python_version(),
        "versions": {"corepress": _core.__version__, **versions(("numpy", *packages))},
    }
