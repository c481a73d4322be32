"""Times of alternating jobs, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Job = Callable[[], Any]


# "wall" is what a user waits; "cpu" is the time that the threads of this process have run, together: on a machine that
# others use too, it still shows how two jobs compare.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Best:
    """The best times of a job's runs, by each clock."""

    seconds: float = float("inf")
    cpu_seconds: float = float("inf")

    def run(self, job: Job) -> Any:
        """Run the job once more and return its result."""
        cpu, wall = time.process_time(), time.perf_counter()
        result = job()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.seconds, self.cpu_seconds = min(self.seconds, wall), min(self.cpu_seconds, cpu)
        return result


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
