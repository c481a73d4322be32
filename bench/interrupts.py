"""How long the longest calls go on after Ctrl-C: from Python, from the shell and from C.

    python bench/interrupts.py [--ways python shell c] [--moments 5] [--quick] [--json FILE]

Each call is a process of its own. It runs to its end once; then SIGINT comes at moments that divide that time, and what
counts is the time from the signal to the end of the process. From Python, KeyboardInterrupt must come out of the call;
from the shell, the exit code must be 130 and nothing may be left, unless the whole result was in place already; from C,
the call must say that it was cancelled by the function that `corepress_set_cancel` was given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import corepress as cp
import documents
from corepress import coreml, system
from corepress.benchmark.packages import build_package
from weights import normal

SOURCE = Path(__file__).with_suffix(".c")
LONGEST_WAIT = 1.0  # seconds
COLUMNS = 4096
GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
BLOCKS = {"dtype": "int4", "granularity": "per_block", "block_size": 32}

PYTHON: dict[str, Callable[[Inputs], Any]] = {
    "palettize 4 bits": lambda x: cp.palettize(x.weights, nbits=4),
    "palettize 4 bits, groups of 16": lambda x: cp.palettize(x.weights, nbits=4, **GROUPS),
    "palettize 8 bits": lambda x: cp.palettize(x.weights, nbits=8),
    "palettize 8 bits, per-channel scale": lambda x: cp.palettize(x.weights, nbits=8, enable_per_channel_scale=True),
    "palettize 8 bits, vectors of 4": lambda x: cp.palettize(x.weights, nbits=8, cluster_dim=4),
    "quantize int4 blocks, searched": lambda x: cp.quantize(x.weights, scale_search="mse", **BLOCKS),
    "prune half": lambda x: cp.prune(x.weights, target_sparsity=0.5),
    "prune 2 of 4": lambda x: cp.prune(x.weights, n_m_ratio=(2, 4)),
    "kernels.kmeans, 2048 entries": lambda x: cp.kernels.kmeans(x.vectors, 2048),
    "kernels.kmeans1d_sweep": lambda x: cp.kernels.kmeans1d_sweep(x.numbers, (2, 4, 8, 16, 32, 64, 128, 256)),
    "coreml.compress": lambda x: x.compress(),
    "coreml.verify": lambda x: coreml.verify(x.source, x.compressed),
    "coreml.compare": lambda x: coreml.compare(x.source, x.compressed),
}
STEPS = [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 4}}]  # what steps.json holds
SHELL = {
    "palettize, groups of 32": "palettize {source} -o {out} --nbits 4 --granularity per_grouped_channel",
    "palettize, vectors of 4": "palettize {source} -o {out} --nbits 8 --cluster-dim 4",
    "palettize --dry-run": "palettize {source} --nbits 4 --cluster-dim 4 --dry-run",
    "quantize, searched": "quantize {source} -o {out} --dtype int4 --granularity per_block --scale-search mse",
    "prune": "prune {source} -o {out} --n-m-ratio 2:4",
    "compress": "compress {source} -o {out} --config {steps}",
    "decompress": "decompress {compressed} -o {out}",
    "verify": "verify {source} {compressed}",
    "compare": "compare {source} {compressed}",
    "inspect": "inspect {compressed}",
}
C = (
    "palettize 4 bits",
    "palettize 8 bits",
    "palettize 4 bits, groups of 16",
    "palettize 8 bits, vectors of 4",
    "quantize int4 blocks, searched",
    "quantize int4, searched",
    "prune half",
    "prune 2 of 4",
    "prune blocks of 4",
    "kmeans1d",
)

WAYS = {"python": PYTHON, "shell": SHELL, "c": C}


class Inputs:
    """What calls work on; weights, vectors and numbers are drawn when they are first asked for.

    Parameters
    ----------
    folder : Path
        Where the packages are.
    megabytes : int
        The size of the source and of the weights; the vectors and the numbers have a fraction of it.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder, self.megabytes = folder, megabytes
        self.source, self.compressed = folder / "source.mlpackage", folder / "compressed.mlpackage"
        self.steps = folder / "steps.json"

    def build(self) -> None:
        """Write the packages, and the steps of a config."""
        self.steps.write_text(json.dumps(STEPS))
        shapes = [(2048, COLUMNS)] * (self.megabytes // 16)
        build_package(self.source, (normal(shape, seed=seed) for seed, shape in enumerate(shapes)))
        coreml.compress(self.source, self.compressed, {"palettize": {"nbits": 4}})

    @cached_property
    def weights(self) -> list[Any]:
        """float32 weights."""
        return [normal((2048, COLUMNS), "float32")] * (self.megabytes // 16 // 2 or 1)

    @cached_property
    def vectors(self) -> Any:
        """Vectors of eight."""
        return normal((self.megabytes << 10, 8), "float32")

    @cached_property
    def numbers(self) -> Any:
        """float64 numbers."""
        return normal((self.megabytes << 14,), "float64")

    def compress(self) -> None:
        """Compress the package."""
        coreml.compress(self.source, self.folder / "out" / "out.mlpackage", {"palettize": {"nbits": 4, **GROUPS}})


@dataclass
class Measured:
    """One call, ended at several moments."""

    way: str
    call: str
    seconds: float  # of the whole call
    waits: list[float]
    wrong: list[str]


class Bench:
    """Runs calls in processes.

    Parameters
    ----------
    folder : Path
        Where the packages are; what calls write goes to its folder ``out``.
    megabytes : int
        The size of what calls work on.
    moments : int
        How often each call is ended.
    """

    def __init__(self, folder: Path, megabytes: int, moments: int) -> None:
        self.inputs, self.moments = Inputs(folder, megabytes), moments
        self.out = folder / "out"
        self.out.mkdir()

    def _command(self, way: str, call: str) -> list[str]:
        given = [str(self.inputs.folder), str(self.inputs.megabytes)]
        if way == "c":
            return [str(self.inputs.folder / "interrupts"), call, str(64 * self.inputs.megabytes)]
        if way == "python":
            return [sys.executable, __file__, "--call", call, *given]
        places = {name: str(getattr(self.inputs, name)) for name in ("source", "compressed", "steps")}
        places["out"] = str(self.out / "out.mlpackage")
        return [sys.executable, "-m", "corepress", *(word.format(**places) for word in SHELL[call].split())]

    def measure(self, way: str, call: str) -> Measured:
        """Run a call to its end, then end it at several moments."""
        seconds, _, problem = self._run(way, call, None)
        if problem:
            raise SystemExit(f"{way}, {call}: {problem}")
        found = Measured(way, call, seconds, [], [])
        for moment in range(self.moments):
            _, wait, problem = self._run(way, call, seconds * (moment + 0.5) / self.moments)
            found.waits += [wait] if wait is not None else []
            found.wrong += [problem] if problem else []
        return found

    def _left(self) -> list[str]:
        """What is in the place of results and is none; all of it is removed."""
        left = []
        for path in list(self.out.iterdir()):
            try:
                coreml.inspect(path)
            except (OSError, ValueError):
                left.append(path.name)
            shutil.rmtree(path)
        return left

    def _run(self, way: str, call: str, delay: float | None) -> tuple[float, float | None, str | None]:
        """The seconds of a run, those after the signal if it came before the end, and what went wrong."""
        sent = None
        with subprocess.Popen(
            self._command(way, call), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            if way != "shell":
                assert process.stdout is not None
                process.stdout.readline()  # "ready"
            started = time.monotonic()
            if delay is not None:
                try:
                    process.wait(delay)
                except subprocess.TimeoutExpired:
                    sent = time.monotonic()
                    process.send_signal(signal.SIGINT)
            told, errors = process.communicate()
            ended = time.monotonic()
        left = self._left()
        # A shell shows 130 for both: Python itself ends by the signal before and after a command.
        interrupted = process.returncode in (130, -signal.SIGINT) if way == "shell" else told == "interrupted\n"
        problem = None
        if process.returncode and not (way == "shell" and sent is not None and interrupted):
            problem = f"exit code {process.returncode}: {errors[-2000:]}"
        elif interrupted and left:
            problem = f"left behind: {', '.join(left)}"
        return ended - started, None if sent is None else ended - sent, problem


def call(name: str, inputs: Inputs) -> None:
    """In a process of its own: a call from Python that SIGINT ends."""
    job = PYTHON[name]
    for name in {"weights", "vectors", "numbers"} & {*job.__code__.co_names}:
        getattr(inputs, name)  # drawn before the clock runs
    print("ready", flush=True)
    try:
        job(inputs)
        told = "finished"
    except KeyboardInterrupt:
        told = "interrupted"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # one that came in the last moment
    print(told, flush=True)


def build_program(folder: Path) -> str | None:
    """Build the program of the calls from C; why not, if it cannot be built."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return "there is no C compiler"
    library = cp.get_library()
    rpath = f"-Wl,-rpath,{Path(library).parent}"
    command = [compiler, "-O2", SOURCE, f"-I{cp.get_include()}", library, rpath, "-o", folder / "interrupts"]
    subprocess.run(command, check=True)
    return None


def print_table(results: list[Measured], console: Console) -> None:
    table = Table(title=f"seconds from SIGINT to the end, {cp.simd_level()}, {system.current.cpus()} CPUs")
    for title in ("from", "call", "whole call", "median", "longest", "signals", "wrong"):
        table.add_column(title, justify="left" if title in ("from", "call", "wrong") else "right")
    for each in results:
        waits = (f"{statistics.median(each.waits):.2f}", f"{max(each.waits):.2f}") if each.waits else ("-", "-")
        table.add_row(
            each.way, each.call, f"{each.seconds:.1f}", *waits, str(len(each.waits)), "; ".join(each.wrong) or "-"
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument(
        "--calls", nargs="+", metavar="WORD", default=[""], help="only calls that have one of these words"
    )
    parser.add_argument("--moments", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="weights of 16 MB")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where packages are written")
    parser.add_argument("--call", nargs=3, help=argparse.SUPPRESS)
    documents.add_options(parser)
    options = parser.parse_args()
    # Children take over that a signal is ignored, as it is of what a shell starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if options.call:
        name, folder, megabytes = options.call
        call(name, Inputs(Path(folder), int(megabytes)))
        return
    console, results = Console(width=140), []
    megabytes = 16 if options.quick else 256
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        bench = Bench(Path(folder), megabytes, options.moments)
        bench.inputs.build()
        for way in options.ways:
            obstacle = build_program(Path(folder)) if way == "c" else None
            if obstacle is not None:
                console.print(f"{way}: left out, {obstacle}")
                continue
            chosen = [name for name in WAYS[way] if any(word in name for word in options.calls)]
            results += [bench.measure(way, name) for name in chosen]
    print_table(results, console)
    documents.save(options, {"megabytes": megabytes, "moments": options.moments}, [asdict(each) for each in results])
    for each in results:
        if max(each.waits, default=0) > LONGEST_WAIT:
            console.print(f"{each.way}, {each.call}: over {LONGEST_WAIT:g} s")
    if any(each.wrong for each in results):
        raise SystemExit("some calls ended wrongly")


if __name__ == "__main__":
    main()
