"""Diffusion models of up to 12 billion weights through the kernels, a drawn layer at a time, beside other tools.

    python bench/diffusion.py [--models sd15 sdxl] [--methods 4bit int8] [--sampled 4bit-groups] [--threads 1 all]
                              [--repeat 3] [--peers coremltools MLX | --no-peers] [--quick] [--scratch FOLDER]
                              [--json FILE]

All layers of a model are drawn one after the other, compressed by every method in turns beside np.copyto of them, and
thrown away, so a machine of 8 GB is enough for each. Drawing is not in the times. The numbers that weights are made of
are drawn once: a layer takes them from another place on, each row times its own scale. Other tools do one layer of each
of the four shapes with most weights, whole, once, and so do methods that are slow or --sampled; their times are scaled
to the model. `cp` copies a file of drawn weights, to the page cache and, with `sync -f`, to the disk; its time is
scaled too. --quick measures one layer of each shape.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import documents
import peers
from corepress import system
from corepress.benchmark.architectures import ARCHITECTURES
from corepress.benchmark.drawn_weights import WeightPool
from corepress.benchmark.methods import METHODS
from corepress.benchmark.streaming import (
    SAMPLED_SHAPES,
    Measured,
    PeerMeasured,
    every_layer,
    one_of_each_shape,
    stream,
    stream_peers,
)
from corepress.reporting.wording import format_count, format_decibels

COPIES = {"cp": 'cp "$1" "$2"', "cp and sync": 'cp "$1" "$2" && sync -f "$2"'}
COPIED_SHAPES = {False: (16384, 16384), True: (1024, 1024)}  # 512 MB; quick


def copy_seconds_per_byte(scratch: Path, quick: bool) -> dict[str, float]:
    """How long `cp` takes, the best of three in turns."""
    weight = WeightPool().draw(COPIED_SHAPES[quick])
    best = dict.fromkeys(COPIES, float("inf"))
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        source, target = Path(folder, "weights.bin"), Path(folder, "copy.bin")
        weight.tofile(source)
        subprocess.run(["sync", "-f", source], check=True)
        for _ in range(3):
            for name, command in COPIES.items():
                start = time.perf_counter()
                subprocess.run(["sh", "-c", command, "sh", source, target], check=True)
                best[name] = min(best[name], (time.perf_counter() - start) / weight.nbytes)
                target.unlink()
    return best


def number_of_threads(text: str) -> int:
    return system.current.cpus() if text == "all" else int(text)


def print_model(results: Sequence[Measured], others: Sequence[PeerMeasured], copies: dict[str, float]) -> None:
    model, console = ARCHITECTURES[results[0].model], Console(width=150)
    table = Table(title=f"{model.title}, {format_count(model.weights)} weights in {len(model.layers)} layers")
    table.add_column("method")
    for heading in ("threads", "M weights/s", "seconds", "CPU s", "copies", "peak MB", "bits/weight", "SNR", "kept"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            METHODS[result.method].title + (" *" if result.measured_weights < result.weights else ""),
            str(result.threads),
            f"{result.weights_per_second / 1e6:.0f}",
            f"{result.seconds:.2f}",
            f"{result.cpu_seconds:.2f}",
            f"{result.seconds / result.copy_seconds:.1f}",
            megabytes(result.peak_bytes),
            f"{result.bits_per_weight:.3f}",
            format_decibels(result.snr_db),
            str(result.kept),
        )
    console.print(table)
    floors = {"np.copyto": results[0].copy_seconds, **{name: 2 * model.weights * each for name, each in copies.items()}}
    console.print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in floors.items()), style="dim")
    if results[0].process_peak_bytes is not None:
        console.print(f"peak memory of the process {megabytes(results[0].process_peak_bytes)} MB", style="dim")
    if others:
        ours = {result.method: result for result in results}  # of the last number of threads
        table = Table(title="other tools *")
        for heading in ("method", "tool", "seconds", "CPU s", "ratio", "CPU ratio", "peak MB"):
            table.add_column(heading, justify="left" if heading in ("method", "tool") else "right")
        for other in sorted(others, key=lambda other: list(METHODS).index(other.method)):
            our = ours[other.method]
            ratios = other.seconds / our.seconds, other.cpu_seconds / our.cpu_seconds
            cells = (f"{number:.1f}" for number in (other.seconds, other.cpu_seconds, *ratios))
            table.add_row(METHODS[other.method].title, other.tool, *cells, megabytes(other.peak_bytes))
        console.print(table)
    console.print(
        f"* scaled; tools from one layer of each of the {SAMPLED_SHAPES} shapes with most weights", style="dim"
    )


def megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.0f}"


def measure_peers(model: str, methods: Sequence[str], tools: Sequence[str], found: Any) -> None:
    """In a fresh process: what the other tools load would count as our memory, and their threads disturb."""
    warnings.simplefilter("ignore")
    jobs = {tool: functools.partial(peers.job, tool) for tool in tools}
    found.put(stream_peers(ARCHITECTURES[model], [METHODS[method] for method in methods], jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--sampled", nargs="+", choices=METHODS, default=[], help="methods that a sample must do for")
    parser.add_argument("--threads", nargs="+", type=number_of_threads, default=[1, system.current.cpus()], metavar="N")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each call, of which the best counts")
    parser.add_argument("--peers", nargs="+", choices=peers.PACKAGES, default=list(peers.PACKAGES), metavar="TOOL")
    parser.add_argument("--no-peers", action="store_true", help="leave the other tools out, which take minutes")
    parser.add_argument("--quick", action="store_true", help="one layer of each shape, scaled")
    parser.add_argument("--scratch", type=Path, default=Path.cwd(), help="folder to try `cp` in (here)")
    documents.add_options(parser)
    options = parser.parse_args()
    asked = [] if options.no_peers else options.peers
    tools = [tool for tool in asked if not peers.missing(tool)]
    absent = [tool for tool in asked if peers.missing(tool)]
    threads = list(dict.fromkeys(options.threads))
    methods = [
        dataclasses.replace(METHODS[key], slow=METHODS[key].slow or key in options.sampled) for key in options.methods
    ]
    copies = copy_seconds_per_byte(options.scratch, options.quick)
    results: list[Measured] = []
    others: list[PeerMeasured] = []
    settings = {
        "quick": options.quick,
        "repeat": options.repeat,
        "left_out": absent,
        "copy_seconds_per_byte": copies,
    }

    def save() -> None:
        """Also when more is to come: what a run has measured stays when it is interrupted."""
        measured = {"ours": [dataclasses.asdict(each) for each in results]}
        documents.save(options, settings, {**measured, "peers": [dataclasses.asdict(each) for each in others]})

    context = multiprocessing.get_context("spawn")
    for key in options.models:
        model = ARCHITECTURES[key]
        samples = one_of_each_shape(model) if options.quick else every_layer(model)
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(model.title, total=None)

            def tell(done: int, total: int, name: str, bar: Any = bar, task: Any = task) -> None:
                bar.update(task, completed=done, total=total)

            results += stream(model, methods, threads, samples, repeat=options.repeat, progress=tell)
            save()
            if tools:
                bar.update(task, description=f"{model.title}, other tools")
                found = context.SimpleQueue()
                process = context.Process(target=measure_peers, args=(key, options.methods, tools, found))
                process.start()
                process.join()  # what it found fits the pipe
                if process.exitcode:
                    raise SystemExit(f"other tools failed on {model.title}; leave them out by --no-peers")
                others += found.get()
            save()
        of_model = [[each for each in all_of_them if each.model == key] for all_of_them in (results, others)]
        print_model(*of_model, copies)
    if absent:
        print(f"not installed: {', '.join(absent)}")


if __name__ == "__main__":
    main()
