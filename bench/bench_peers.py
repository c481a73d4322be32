"""The same rows by other tools, in the same groups as ours; takes minutes. Ratios in turns are table.py's."""

from __future__ import annotations

from typing import Any

import pytest

import peers
from bench_kernels import available, record
from corepress.benchmark import timing
from rows import ROWS
from table import ONE_RUN_SECONDS, error_ratio

PAIRS = [(name, peer.tool) for name, row in ROWS.items() for peer in row.peers]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "tool"), PAIRS)
def bench_peer(benchmark: Any, name: str, tool: str, threads: int | None, quick: bool, with_peers: bool) -> None:
    if not with_peers:
        pytest.skip("--no-peers")
    if peers.missing(tool):
        pytest.skip(f"{tool} is not installed")
    row = available(name)
    data = row.make(quick)
    peer = next(peer for peer in row.peers if peer.tool == tool)
    job = peer.job(data)
    elapsed, theirs = timing.timed(job)
    error_ratio(row, peer, data, row.run(data, threads), theirs)
    benchmark.group = name
    benchmark.pedantic(job, rounds=1 if elapsed > ONE_RUN_SECONDS else 5)
    record(benchmark, row.copied(data).size)
