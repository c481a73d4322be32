"""Each row's job beside a copy of the same array. Every answer is checked before it is timed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rows import ROWS, Row, unsupported


def available(name: str) -> Row:
    """The row of that name; skips where it cannot be done."""
    reason = unsupported(ROWS[name])
    if reason:
        pytest.skip(reason)
    return ROWS[name]


def record(benchmark: Any, count: int) -> None:
    """Add the rate to what is saved; nothing to do where only the answers are checked."""
    if benchmark.stats is not None:
        benchmark.extra_info["million_weights_per_second"] = round(count / benchmark.stats.stats.min / 1e6)


@pytest.mark.parametrize("name", ROWS)
def bench_corepress(benchmark: Any, name: str, threads: int | None, quick: bool) -> None:
    row = available(name)
    data = row.make(quick)
    row.check(data, row.run(data, threads))
    benchmark.group = name
    benchmark(row.run, data, threads)
    record(benchmark, row.copied(data).size)


@pytest.mark.parametrize("name", ROWS)
def bench_copy(benchmark: Any, name: str, quick: bool) -> None:
    array = available(name).copied(ROWS[name].make(quick))
    out = np.empty_like(array)
    benchmark.group = name
    benchmark(np.copyto, out, array)
    assert np.array_equal(out, array)
    record(benchmark, array.size)
