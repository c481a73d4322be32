"""How time grows with weights, entries and groups, and how much memory a call needs beside its output.

    python bench/growth.py [--quick] [--tables weights entries groups memory] [--json FILE]

`slope` is the exponent of the time between two lines: 1 is linear, 0 flat. `speed-up` is one thread's time over that of
all CPUs, measured in turns.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import corepress as cp
import documents
from corepress import system
from corepress.benchmark import memory as memory_of_calls
from corepress.benchmark import timing
from weights import normal, weight

Line = dict[str, Any]
INT4_BLOCKS = {"dtype": "int4", "granularity": "per_block", "block_size": 32}
GROUPS = {"granularity": "per_grouped_channel"}
COLUMNS = 1024
SIZES = (1 << 10, 10 << 10, 100 << 10, 1 << 20, 10 << 20, 100 << 20, 200 << 20)

JOBS: dict[str, Callable[..., Any]] = {
    "palettize 4 bits": lambda w, **k: cp.palettize(w, nbits=4, **k),
    "palettize 8 bits": lambda w, **k: cp.palettize(w, nbits=8, **k),
    "int8 per channel": lambda w, **k: cp.quantize(w, **k),
    "int4 blocks of 32": lambda w, **k: cp.quantize(w, **INT4_BLOCKS, **k),
    "prune half": lambda w, **k: cp.prune(w, target_sparsity=0.5, **k),
    "prune 2 of 4": lambda w, **k: cp.prune(w, n_m_ratio=(2, 4), **k),
    "prune blocks of 4": lambda w, **k: cp.prune(w, target_sparsity=0.5, block_size=4, **k),
}
# Too slow, or not a matter of size alone: only their memory is of interest here.
MEMORY_JOBS = JOBS | {
    "palettize 4 bits, groups of 16": lambda w, **k: cp.palettize(w, nbits=4, group_size=16, **GROUPS, **k),
    "int4 blocks of 32, searched": lambda w, **k: cp.quantize(w, scale_search="mse", **INT4_BLOCKS, **k),
}


def timed(run: Callable[..., Any], count: int, budget: float) -> Line:
    """Seconds by one thread and by all CPUs, the rate and the speed-up."""
    jobs = {"one": lambda: run(num_threads=1), "all": lambda: run(num_threads=system.current.cpus())}
    best = timing.best_seconds(jobs, budget=budget, most=200)
    return {
        "seconds_of_one_thread": best["one"],
        "seconds": best["all"],
        "million_weights_per_second": count / best["all"] / 1e6,
        "speed_up": best["one"] / best["all"],
    }


def add_slopes(lines: list[Line], by: str) -> list[Line]:
    for first, second in itertools.pairwise(lines):
        growth = second[by] / first[by]
        second["slope"] = math.log(second["seconds"] / first["seconds"]) / math.log(growth)
    return lines


def against_weights(budget: float, largest: int) -> list[Line]:
    """Every job on matrices of 1 Ki to 200 Mi weights, and its decompression and error."""
    lines = []
    whole = normal((largest,))
    for name, job in JOBS.items():
        series: dict[str, list[Line]] = {name: [], f"decompress {name}": []}
        for size in (size for size in SIZES if size <= largest):
            array = whole[:size].reshape(-1, COLUMNS)
            tensor, out = job(array), np.empty_like(array)
            runs = {
                name: lambda job=job, array=array, **k: job(array, **k),
                f"decompress {name}": lambda tensor=tensor, out=out, **k: tensor.dense(out, **k),
            }
            for title, run in runs.items():
                series[title].append({"job": title, "weights": size, **timed(run, size, budget)})
        for one in series.values():
            lines += add_slopes(one, "weights")
    return lines


def against_entries(budget: float, quick: bool) -> list[Line]:
    """Palettes of a whole tensor and of its groups, and exact k-means of distinct numbers, by number of entries."""
    array = weight("convolution", "float16", quick)
    numbers = np.random.default_rng(0).standard_normal(100_000)
    whole, grouped, distinct = [], [], []
    for nbits in (1, 2, 3, 4, 6, 8):

        def palettize(nbits: int = nbits, **options: Any) -> Any:
            return cp.palettize(array, nbits=nbits, **options)

        def in_groups(nbits: int = nbits, **options: Any) -> Any:
            return cp.palettize(array, nbits=nbits, group_size=16, **GROUPS, **options)

        entries = {"entries": 2**nbits}
        whole.append({"job": "palettize", **entries, **timed(palettize, array.size, budget)})
        grouped.append({"job": "palettize, groups of 16", **entries, **timed(in_groups, array.size, budget)})
    for k in (2, 4, 8, 16, 32, 64, 128, 256):

        def kmeans1d(k: int = k, **options: Any) -> Any:
            return cp.kernels.kmeans1d(numbers, k, **options)

        distinct.append({"job": "kmeans1d, 100,000 numbers", "entries": k, **timed(kmeans1d, numbers.size, budget)})
    return [line for series in (whole, grouped, distinct) for line in add_slopes(series, "entries")]


def against_groups(budget: float, quick: bool) -> list[Line]:
    """The same weights in 1 to 102,400 groups; then many small groups and one large tensor."""
    count = (1 << 20) if quick else 13_107_200
    flat = normal((count,))
    lines: dict[str, list[Line]] = {"palettize 4 bits": [], "int8 per channel": []}
    for groups in (1, 10, 100, 1024, 10_240, 102_400):
        if count % groups:
            continue
        rows = flat.reshape(groups, -1)
        runs = {
            "palettize 4 bits": lambda rows=rows, **k: cp.palettize(rows, nbits=4, group_size=1, **GROUPS, **k),
            "int8 per channel": lambda rows=rows, **k: cp.quantize(rows, **k),
        }
        for title, run in runs.items():
            lines[title].append({"job": title, "groups": groups, "weights": count, **timed(run, count, budget)})
    special: list[Line] = []
    for groups, length in ((12_000, 32 if quick else 320), (1, (1 << 20) if quick else 100_000_000)):
        rows = normal((groups, length))

        def run(rows: Any = rows, **options: Any) -> Any:
            return cp.palettize(rows, nbits=4, group_size=1, **GROUPS, **options)

        size = {"groups": groups, "weights": rows.size}
        special.append({"job": "palettize 4 bits, the extremes", **size, **timed(run, rows.size, budget)})
    return [line for series in lines.values() for line in add_slopes(series, "groups")] + special


def _extra_mebibytes(call: Callable[[], Any], output: Callable[[Any], int]) -> tuple[Any, float]:
    """What a call returns, and the peak memory that it adds, less its output's."""
    result, peak = memory_of_calls.PeakMeter().call(call)
    return result, (peak - output(result)) / 2**20


def _arrays_bytes(result: Any) -> int:
    return sum(value.nbytes for value in vars(result).values() if isinstance(value, np.ndarray))


def _extras(name: str, shape: tuple[int, int], dtype: str, found: Any) -> None:
    """In a fresh process: the extra memory of compressing, decompressing and measuring."""
    array, job = normal(shape, dtype), MEMORY_JOBS[name]
    job(array[:64]).dense()  # what is loaded and kept once
    tensor, compressing = _extra_mebibytes(lambda: job(array), _arrays_bytes)
    dense, decompressing = _extra_mebibytes(tensor.dense, lambda out: out.nbytes)
    del dense
    _, measuring = _extra_mebibytes(lambda: cp.error(array, tensor), lambda error: 0)
    found.put((compressing, decompressing, measuring))


def memory(rows: int) -> list[Line]:
    """Extra memory of each call in MiB; a fresh process for each job, so that none finds memory of another."""
    context = multiprocessing.get_context("spawn")
    lines = []
    for dtype in ("float16", "float32"):
        for name in MEMORY_JOBS:
            found = context.SimpleQueue()
            process = context.Process(target=_extras, args=(name, (rows, COLUMNS), dtype, found))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{name} failed")
            keys = ("compress_mib", "decompress_mib", "error_mib")
            extras = dict(zip(keys, found.get(), strict=True))
            lines.append({"job": f"{name}, {dtype}", "weights": rows * COLUMNS, **extras})
    return lines


def print_lines(title: str, lines: list[Line], console: Console) -> None:
    table = Table(title=title)
    keys = list(dict.fromkeys(key for line in lines for key in line))
    for key in keys:
        table.add_column(key.replace("_", " "), justify="left" if key == "job" else "right")
    before = None
    for line in lines:
        cells = [line.get(key, "") for key in keys]
        if line["job"] == before:
            cells[0] = ""
        before = line["job"]
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes up to 1 Mi weights")
    parser.add_argument("--tables", nargs="*", default=["weights", "entries", "groups", "memory"])
    documents.add_options(parser)
    options = parser.parse_args()
    quick = options.quick
    budget = 0.05 if quick else 0.3
    tables: dict[str, Callable[[], list[Line]]] = {
        "weights": lambda: against_weights(budget, 1 << 20 if quick else SIZES[-1]),
        "entries": lambda: against_entries(budget, quick),
        "groups": lambda: against_groups(budget, quick),
        "memory": lambda: memory(1024 if quick else 100 * 1024),
    }
    console = Console(width=150)
    results = {}
    for name in options.tables:
        if name == "memory" and not memory_of_calls.tells_peaks():
            console.print("memory: left out, this system does not tell the peak of a process")
            continue
        results[name] = tables[name]()
        print_lines(f"{name}, {cp.simd_level()}, {system.current.cpus()} CPUs", results[name], console)
    documents.save(options, {"quick": quick}, results)


if __name__ == "__main__":
    main()
