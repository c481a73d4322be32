"""Times of jobs that take turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Job = Callable[[], Any]


# "wall" is what a user waits; "cpu" is the time that the threads of this process have run, together: on a machine that
# others use too, it still tells how two jobs compare.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def timed(job: Job, clock: str = "wall") -> tuple[float, Any]:
    """The time of one run, and what it returned."""
    now = CLOCKS[clock]
    start = now()
    result = job()
    return now() - start, result


def seconds(job: Job, clock: str = "wall") -> float:
    """The time of one run; what it returns is freed after the clock stops."""
    return timed(job, clock)[0]


def best_seconds(
    jobs: Mapping[str, Job], *, budget: float = 1.0, most: int = 40, clock: str = "wall"
) -> dict[str, float]:
    """The best time of each job.

    Parameters
    ----------
    jobs : mapping of str to callable
        They run in turns, each until it has used up `budget` seconds or has run `most` times; so a slow one runs once.
    """
    best = dict.fromkeys(jobs, float("inf"))
    spent = dict.fromkeys(jobs, 0.0)
    runs = 0
    while waiting := [name for name in jobs if runs < most and spent[name] < budget]:
        runs += 1
        for name in waiting:
            elapsed = seconds(jobs[name], clock)
            best[name] = min(best[name], elapsed)
            spent[name] += elapsed
    return best


def import_seconds(module: str, repeat: int = 7) -> tuple[float, set[str]]:
    """Best time of importing `module` in a fresh process, and the top-level modules that this loads."""
    code = (
        f"import sys, time; start = time.perf_counter(); import {module}; "
        "print(time.perf_counter() - start); print(*sys.modules)"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(repeat)
    ]
    return min(float(lines[0]) for lines in outputs), {name.split(".")[0] for name in outputs[0][1].split()}
