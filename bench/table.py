"""Prints the table of what must be reached: every row beside its peers and beside np.copyto, best of several in turns.

    python bench/table.py [--threads N] [--level LEVEL] [--rows WORD ...] [--no-peers] [--quick]
                          [--clock cpu] [--json FILE]

Answers are checked before anything is timed. A peer that cannot be imported is named and left out;
`pip install '.[bench]'` installs them. Packages are measured by models.py, growth by growth.py, quality by quality.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import corepress as cp
import documents
import peers
from corepress import _core, system
from corepress.benchmark import timing
from rows import PALETTES, QUANTIZED, ROWS, Peer, Row, unsupported

TOLERANCE = 1e-4  # by which our squared error may exceed a peer's: theirs is rounded otherwise
ONE_RUN_SECONDS = 1.0  # a peer slower than this is not run a second time
IMPORT_SECONDS = 0.15
HEAVY_MODULES = ("torch", "sklearn", "coremltools")
# Of 16 cores, where memory allows it.
MANY_CPUS, MANY_CPUS_SPEED_UP = 16, 10


@dataclass
class Goal:
    """One comparison: `ratio` is how many times as fast as the other, or (`copies`) how many times its time."""

    row: str
    seconds: float
    million_weights_per_second: float | None
    against: str
    their_seconds: float | None
    ratio: float
    required: float | None = None
    aim: float | None = None
    copies: bool = False
    error_ratio: float | None = None

    @property
    def reached(self) -> str:
        """ "aim", "yes" or "no"; empty where nothing is required."""

        def holds(bound: float | None) -> bool:
            return bound is not None and (self.ratio <= bound if self.copies else self.ratio >= bound)

        if self.required is None and self.aim is None:
            return ""
        if holds(self.aim):
            return "aim"
        return "yes" if holds(self.required) else "no" if self.required is not None else "below aim"


def error_ratio(row: Row, peer: Peer, data: Any, ours: Any, theirs: Any) -> float | None:
    """Our squared error over a peer's, which must not be smaller; None where its result cannot be compared."""
    if peer.decode is None:
        return None
    dense = np.asarray(peer.decode(theirs), np.float32).reshape(data.shape)
    ratio = cp.error(data, ours).sse / cp.error(data.astype(np.float32), dense).sse
    if ratio > 1 + TOLERANCE:
        raise AssertionError(f"wrong answer: {row.name} has {ratio:.6f} times the squared error of {peer.tool}")
    return ratio


def measure(row: Row, threads: int | None, *, with_peers: bool, quick: bool, clock: str) -> list[Goal]:
    """Check one row's answer and measure it."""
    data = row.make(quick)
    result = row.run(data, threads)
    row.check(data, result)
    array = row.copied(data)
    out = np.empty_like(array)
    jobs = {"ours": lambda: row.run(data, threads), "copy": lambda: np.copyto(out, array)}
    slow, errors, present = {}, {}, []
    for peer in row.peers:
        if with_peers and not peers.missing(peer.tool):
            present.append(peer)
            job = peer.job(data)
            elapsed, theirs = timing.timed(job, clock)
            errors[peer.tool] = error_ratio(row, peer, data, result, theirs)
            if elapsed > ONE_RUN_SECONDS:
                slow[peer.tool] = elapsed
            else:
                jobs[peer.tool] = job
    best = timing.best_seconds(jobs, budget=0.2 if quick else 0.6, most=200, clock=clock) | slow
    ours, copy = best["ours"], best["copy"]
    rate = array.size / ours / 1e6
    bounds = (None, None) if quick else (row.copies_required, row.copies_aim)  # small weights stay in the cache
    goals = [Goal(row.name, ours, rate, "copy", copy, ours / copy, *bounds, True)]
    for peer in present:
        seconds = best[peer.tool]
        bounds = (None, None) if quick else (peer.required, peer.aim)
        goals.append(
            Goal(row.name, ours, rate, peer.tool, seconds, seconds / ours, *bounds, error_ratio=errors[peer.tool])
        )
    return goals


def import_seconds(module: str, repeat: int = 7) -> tuple[float, set[str]]:
    """Best time of importing `module` in a fresh process, and the top-level modules that this loads."""
    code = (
        f"import sys, time; start = time.perf_counter(); import {module}; "
        "print(time.perf_counter() - start); print(*sys.modules)"
    )
    # As installed modules are: compiled, though not by the first of these processes alone.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    outputs = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
        for _ in range(repeat)
    ]
    return min(float(lines[0]) for lines in outputs), {name.split(".")[0] for name in outputs[0][1].split()}


def measure_import() -> Goal:
    seconds, modules = import_seconds("corepress")
    if heavy := modules.intersection(HEAVY_MODULES):
        raise AssertionError(f"import corepress loads {', '.join(sorted(heavy))}")
    numpy_seconds, _ = import_seconds("numpy")
    ratio = seconds / IMPORT_SECONDS
    return Goal(
        "import corepress", seconds, None, f"{IMPORT_SECONDS} s; NumPy alone", numpy_seconds, ratio, 1, None, True
    )


def measure_threads(row: Row, cpus: int, *, quick: bool) -> Goal:
    data = row.make(quick)
    jobs = {"one": lambda: row.run(data, 1), "all": lambda: row.run(data, cpus)}
    best = timing.best_seconds(jobs, budget=0.2 if quick else 0.6)
    required = MANY_CPUS_SPEED_UP if cpus >= MANY_CPUS else None
    ratio = best["one"] / best["all"]
    rate = row.copied(data).size / best["all"] / 1e6
    return Goal(f"{row.name}, {cpus} CPUs", best["all"], rate, "1 thread", best["one"], ratio, required)


def wanted(words: Sequence[str]) -> dict[str, Row]:
    """The rows whose names contain one of the words; all without any."""
    return {name: row for name, row in ROWS.items() if not words or any(word in name for word in words)}


@contextlib.contextmanager
def same_threads(threads: int | None) -> Iterator[None]:
    """Hold the thread pools of peers to as many threads, where the package that can do it is there."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield
        return
    with threadpool_limits(threads):
        yield


def print_goals(goals: list[Goal], console: Console, title: str) -> None:
    table = Table(title=title)
    for heading in (
        "row",
        "ours ms",
        "M weights/s",
        "against",
        "theirs ms",
        "ratio",
        "required",
        "aim",
        "error",
        "reached",
    ):
        table.add_column(heading, justify="left" if heading in ("row", "against", "reached") else "right")
    before = None
    for goal in goals:
        first = goal.row != before
        before = goal.row

        def bound(value: float | None, goal: Goal = goal) -> str:
            return "" if value is None else f"{'<=' if goal.copies else '>='} {value:g}"

        table.add_row(
            goal.row if first else "",
            f"{goal.seconds * 1e3:.2f}" if first else "",
            f"{goal.million_weights_per_second:,.0f}" if first and goal.million_weights_per_second else "",
            goal.against,
            "" if goal.their_seconds is None else f"{goal.their_seconds * 1e3:,.1f}",
            f"{goal.ratio:.2f}" if goal.copies else f"{goal.ratio:.1f}",
            bound(goal.required),
            bound(goal.aim),
            "" if goal.error_ratio is None else f"{goal.error_ratio:.4f}",
            f"[red]{goal.reached}[/]" if goal.reached == "no" else goal.reached,
        )
    console.print(table)
    console.print(
        "copy: ratio of our time to np.copyto's. Others: how many times as fast. error: our squared error / theirs."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, help="threads of every call, and of peers that can be told (all CPUs)")
    parser.add_argument("--level", choices=cp.simd_levels(), default=cp.simd_level(), help="instruction-set level")
    parser.add_argument("--rows", nargs="*", default=[], metavar="WORD", help="only rows whose name has such a word")
    parser.add_argument("--no-peers", action="store_true", help="leave the other tools out, which take minutes")
    parser.add_argument("--quick", action="store_true", help="small weights, nothing is judged")
    parser.add_argument(
        "--clock", choices=timing.CLOCKS, default="wall", help="cpu, with --threads 1, for machines that are busy"
    )
    documents.add_options(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    console = Console(width=150)
    _core.set_simd_level(options.level)
    goals: list[Goal] = []
    notes: list[str] = []
    wrong: list[str] = []
    with same_threads(options.threads):
        for name, row in wanted(options.rows).items():
            reason = unsupported(row)
            if reason:
                notes.append(f"{name}: left out ({reason})")
                continue
            try:
                with console.status(name):
                    goals += measure(
                        row,
                        options.threads,
                        with_peers=not options.no_peers,
                        quick=options.quick,
                        clock=options.clock,
                    )
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
        if not options.rows:
            goals.append(measure_import())
            if system.current.cpus() > 1:
                goals += [
                    measure_threads(row, system.current.cpus(), quick=options.quick)
                    for row in (PALETTES[3], PALETTES[6], QUANTIZED[0])
                ]
    if peers.absent() and not options.no_peers:
        notes.append(f"not installed: {', '.join(peers.absent())}")
    threads = options.threads or system.current.cpus()
    print_goals(goals, console, f"{platform.machine()}, {options.level}, {threads} threads, {options.clock} time")
    for note in notes + wrong:
        console.print(note)
    settings = {"threads": threads, "clock": options.clock, "quick": options.quick, "notes": notes + wrong}
    documents.save(options, settings, [{**asdict(goal), "reached": goal.reached} for goal in goals])
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
