"""Tells what a change did to the speed of every row: two revisions in turns, pair by pair.

    python bench/compare.py BEFORE [AFTER] [--rows WORD ...] [--threads N] [--pairs 21] [--seconds 4] [--quick]
                            [--clock cpu] [--json FILE]

BEFORE and AFTER are git revisions; without AFTER, what is installed now is measured. A revision is built once, in
build/compare. Each has a process of its own with its own bench/rows.py. In a pair both do the row once, now one first,
now the other; the ratio of their times hardly depends on what else the machine does. Shown are the median of the
ratios, over 1 where AFTER is slower, and the interval that holds the true median with 99 % confidence, from the ranks
of the ratios alone. A row counts as changed where that interval does not hold 1. `result` tells whether both gave the
same bytes.

To compare runs that were saved, of other days or machines, use pytest-benchmark:

    pytest bench --no-peers --benchmark-autosave      # into .benchmarks, which git ignores
    pytest-benchmark compare --group-by=name
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.table import Table

import documents
from corepress.benchmark import timing

ROOT = Path(__file__).parent.parent
WORKER = Path(__file__).with_name("compare_worker.py")
BUILDS = ROOT / "build" / "compare"
CONFIDENCE = 0.99
FEWEST_PAIRS = 9  # with fewer there is no such interval


@dataclass(frozen=True)
class Compared:
    """One row: times of the medians, and how many times as long AFTER takes."""

    row: str
    pairs: int
    seconds_before: float
    seconds_after: float
    ratio: float
    ratio_low: float
    ratio_high: float
    same_result: bool

    @property
    def verdict(self) -> str:
        """ "faster", "slower", or nothing where the noise is as large as the change."""
        return "faster" if self.ratio_high < 1 else "slower" if self.ratio_low > 1 else ""


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The ranks between which the median of the population lies, by the binomial distribution; no other assumption."""
    ordered, count = sorted(values), len(values)
    outside, rank = 0.0, 0
    while rank < count // 2:
        outside += 2 * math.comb(count, rank) / 2**count
        if outside > 1 - CONFIDENCE:
            break
        rank += 1
    rank = max(rank - 1, 0)
    return ordered[rank], ordered[count - 1 - rank]


def compared(row: str, before: Sequence[float], after: Sequence[float], same_result: bool) -> Compared:
    """Sum up the pairs of a row."""
    ratios = [second / first for first, second in zip(before, after, strict=True)]
    middle = statistics.median
    return Compared(
        row, len(ratios), middle(before), middle(after), middle(ratios), *median_interval(ratios), same_result
    )


def built(revision: str) -> tuple[Path, Path]:
    """The folder of a revision's benchmarks, and that of its installation; made if they are not there."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", f"{revision}^{{commit}}"], capture_output=True, text=True, check=False)
    if commit.returncode:
        raise SystemExit(f"no such revision: {revision}")
    folder = BUILDS / commit.stdout.strip()[:12]
    source, site = folder / "source", folder / "site"
    if not (site / "corepress").exists():
        source.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run([*git, "archive", commit.stdout.strip()], capture_output=True, check=True)
        subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
        subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True)
    return source / "bench", site


class Worker:
    """A process that does rows of one revision, or of what is installed."""

    def __init__(self, revision: str | None, threads: int | None, quick: bool, clock: str = "wall") -> None:
        bench, site = built(revision) if revision else (Path(__file__).parent, None)
        command = [sys.executable, str(WORKER), str(bench), str(threads or 0), str(int(quick)), clock]
        environment = {**os.environ, **({"PYTHONPATH": str(site), "COREPRESS_SITE": str(site)} if site else {})}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.rows: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self._process.args))} ended")
        return json.loads(line)

    def run(self, row: str) -> tuple[float, str]:
        """Seconds of one run, and a digest of the result the first time."""
        assert self._process.stdin is not None
        self._process.stdin.write(row + "\n")
        self._process.stdin.flush()
        seconds, digest = self._answer()
        return seconds, digest

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.__exit__(kind, error, at)


def measure(row: str, before: Worker, after: Worker, pairs: int, seconds: float) -> Compared:
    """Do one row in pairs, until there are enough or the time is used up."""
    (_, first), (_, second) = before.run(row), after.run(row)  # nothing is loaded any more
    times: tuple[list[float], list[float]] = [], []
    workers = (before, after)
    while len(times[0]) < pairs and (len(times[0]) < FEWEST_PAIRS or sum(map(sum, times)) < seconds):
        order = (0, 1) if len(times[0]) % 2 == 0 else (1, 0)
        for index in order:
            times[index].append(workers[index].run(row)[0])
    return compared(row, *times, first == second)


def print_table(results: Sequence[Compared], title: str, console: Console) -> None:
    table = Table(title=title)
    for heading in ("row", "before ms", "after ms", "ratio", "99 % interval", "pairs", "", "result"):
        table.add_column(heading, justify="left" if heading in ("row", "", "result") else "right")
    for result in results:
        table.add_row(
            result.row,
            f"{1e3 * result.seconds_before:.2f}",
            f"{1e3 * result.seconds_after:.2f}",
            f"{result.ratio:.3f}",
            f"{result.ratio_low:.3f} to {result.ratio_high:.3f}",
            str(result.pairs),
            result.verdict,
            "same" if result.same_result else "other",
        )
    console.print(table)
    changed = [result for result in results if result.verdict]
    console.print(f"{len(changed)} of {len(results)} rows changed")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a script that measures pairs."""
    parser.add_argument("--rows", nargs="*", default=[], metavar="WORD", help="only rows whose name has such a word")
    parser.add_argument("--threads", type=int, help="threads of every call (all CPUs)")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=4, help="after which a row gets no more pairs than nine")
    parser.add_argument("--quick", action="store_true", help="small weights")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="cpu, for machines that are busy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after", nargs="?")
    add_options(parser)
    documents.add_options(parser)
    options = parser.parse_args()
    after_name = options.after or "installed"
    with (
        Worker(options.before, options.threads, options.quick, options.clock) as before,
        Worker(options.after, options.threads, options.quick, options.clock) as after,
    ):
        common = [row for row in after.rows if row in before.rows]
        rows = [row for row in common if not options.rows or any(word in row for word in options.rows)]
        console, results = Console(width=130), []
        for row in rows:
            with console.status(row):
                results.append(measure(row, before, after, options.pairs, options.seconds))
    print_table(results, f"{options.before} and {after_name}", console)
    settings = {"before": options.before, "after": after_name, "clock": options.clock, "threads": options.threads}
    documents.save(options, settings, [{**asdict(result), "verdict": result.verdict} for result in results])


if __name__ == "__main__":
    main()
