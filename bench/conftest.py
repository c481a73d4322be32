"""Options and fixtures of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import corepress as cp
import peers
from corepress import _core
from corepress.benchmark.machine import describe_machine


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("corepress")
    group.addoption("--threads", type=int, default=None, help="threads of every timed call (default: all CPUs)")
    group.addoption("--level", default=None, help="instruction-set level of every timed call (default: the best)")
    group.addoption("--no-peers", action="store_true", help="leave out the other tools, which take minutes")
    group.addoption("--quick", action="store_true", help="small weights")


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> int | None:
    return request.config.getoption("--threads")


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    return request.config.getoption("--quick")


@pytest.fixture(scope="session")
def with_peers(request: pytest.FixtureRequest) -> bool:
    return not request.config.getoption("--no-peers")


@pytest.fixture(autouse=True)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = cp.simd_level()
    _core.set_simd_level(request.config.getoption("--level") or before)
    yield cp.simd_level()
    _core.set_simd_level(before)


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    machine_info["corepress"] = describe_machine(peers.index_names())
