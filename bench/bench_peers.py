"""Side by side with coremltools in one run: best of several of ours and theirs in turn, and the ratio."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import corepress as cp
import peers
from weights import SHAPES, draw

GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
CONVOLUTION = draw(SHAPES["convolution"], "float16")

Job = Callable[[], Any]
# name: (ours, theirs, the ratio to reach)
PAIRS: dict[str, tuple[Job, Job, float]] = {
    **{
        f"palettize {nbits} bits": (
            lambda n=nbits: cp.palettize(CONVOLUTION, nbits=n),
            lambda n=nbits: peers.palettize(CONVOLUTION, n),
            ratio,
        )
        for nbits, ratio in ((4, 200), (6, 200), (8, 100))
    },
    "palettize 4 bits, groups of 16": (
        lambda: cp.palettize(CONVOLUTION, nbits=4, **GROUPS),
        lambda: peers.palettize(CONVOLUTION, 4, 16),
        60,
    ),
    "int4 blocks of 32": (
        lambda: cp.quantize(CONVOLUTION, dtype="int4", granularity="per_block", block_size=32),
        lambda: peers.quantize(CONVOLUTION, 4, 32),
        60,
    ),
    "int8 per channel": (lambda: cp.quantize(CONVOLUTION), lambda: peers.quantize(CONVOLUTION), 100),
}


def _seconds(job: Job) -> tuple[float, Any]:
    start = time.perf_counter()
    result = job()
    return time.perf_counter() - start, result


def _squared_error(theirs: Any) -> float:
    passes = peers.passes()
    if hasattr(theirs, "lut"):
        dense = passes.palettize_weights.decompress(theirs)
    else:
        dense = passes.linear_quantize_weights.decompress(theirs)
    return float(np.square(CONVOLUTION.astype(np.float64) - dense).sum())


@pytest.mark.parametrize("pair", PAIRS)
def bench_against_coremltools(benchmark: Any, pair: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--no-peers"):
        pytest.skip("--no-peers")
    ours, theirs, goal = PAIRS[pair]
    their_seconds, their_result = _seconds(theirs)
    assert cp.error(CONVOLUTION, ours()).sse <= _squared_error(their_result) * (1 + 1e-4)
    benchmark.group = "against coremltools"
    benchmark(ours)
    our_seconds = benchmark.stats.stats.min if benchmark.stats is not None else _seconds(ours)[0]
    their_seconds = min(their_seconds, _seconds(theirs)[0]) if their_seconds < 30 else their_seconds
    copy_seconds = min(_seconds(CONVOLUTION.copy)[0] for _ in range(5))
    report = {
        "coremltools_seconds": round(their_seconds, 3),
        "our_seconds": round(our_seconds, 5),
        "ratio": round(their_seconds / our_seconds, 1),
        "ratio_to_reach": goal,
        "times_a_copy": round(our_seconds / copy_seconds, 2),
    }
    benchmark.extra_info.update(report)
    print(f"\n{pair}: {report}")
