"""Whole packages from the shell, beside coremltools: sizes, quality, time and peak memory of the processes.

    python bench/models.py MODEL.mlpackage [--repeat 3] [--no-peers] [--json FILE]

Jobs take turns, ours then coremltools', and the best time of each counts. A durable copy of the package stands beside
them. Quality is the signal-to-noise ratio over all weights that either compressed, read from the packages written.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import documents
from corepress import _core, coreml
from corepress.compression.metrics import snr_db
from corepress.coreml.format.package import Package, directory_size
from corepress.coreml.format.values import ValueReader
from corepress.coreml.program.program import Program
from corepress.coreml.program.weights import visible_weights

LAUNCHER = str(Path(__file__).with_name("launch.py"))
PEER = str(Path(__file__).with_name("peer_process.py"))
JOBS = {
    "8 bits": ("palettize", "--nbits", "8"),
    "6 bits": ("palettize", "--nbits", "6"),
    "4 bits": ("palettize", "--nbits", "4"),
    "2 bits": ("palettize", "--nbits", "2"),
    "int8 per channel": ("quantize",),
    "50 % pruned": ("prune", "--target-sparsity", "0.5"),
}
# A specification of 9 or more can also express these.
IOS18_JOBS = {
    "4 bits, groups of 16": ("palettize", "--nbits", "4", "--granularity", "per_grouped_channel", "--group-size", "16"),
    "int4 blocks of 32": ("quantize", "--dtype", "int4", "--granularity", "per_block", "--block-size", "32"),
}
# Times the durable copy that a job may take, and should, on a package of gigabytes.
COPIES = {
    "4 bits": (1.5, 1.0),
    "int8 per channel": (1.5, 1.0),
    "4 bits, groups of 16": (4.0, 1.5),
    "50 % pruned": (2.0, 1.0),
    "int4 blocks of 32": (2.0, 1.0),
}


@dataclass
class Measured:
    """One job by one tool."""

    job: str
    tool: str
    seconds: float
    peak_megabytes: float
    package_megabytes: float
    snr_db: float | None


def run(command: list[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a process that must succeed."""
    process = subprocess.run([sys.executable, "-S", LAUNCHER, *command], capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr}")
    seconds, peak, _ = map(float, process.stdout.split())
    return seconds, peak


@contextlib.contextmanager
def dense_weights(package: Path) -> Iterator[list[tuple[str, NDArray[Any]]]]:
    """Float matrices and convolutions of a package without compressed weights, in program order."""
    opened = Package.open(package)
    with ValueReader(opened) as values:
        firsts = [weight.first for weight in visible_weights(Program(opened))]
        yield [
            (first.name, values.read(first.parameters["val"], first.where).data)
            for first in firsts
            if first.data_type.name in ("float16", "float32") and len(first.shape) >= 2
        ]


def quality(source: Path, compressed: Path, folder: Path) -> float:
    """Signal-to-noise ratio in decibel over all weights that differ."""
    decompressed = folder / "decompressed.mlpackage"
    coreml.decompress(compressed, decompressed, overwrite=True)
    signal = noise = 0.0
    with dense_weights(source) as before, dense_weights(decompressed) as after:
        if [array.shape for _, array in before] != [array.shape for _, array in after]:
            raise SystemExit(f"{compressed} has other weights than {source}")
        for (_, first), (_, second) in zip(before, after, strict=True):
            sse, square, *_ = _core.sum_errors(np.ascontiguousarray(first), np.ascontiguousarray(second))
            signal, noise = signal + (square if sse else 0), noise + sse
    shutil.rmtree(decompressed)
    return snr_db(signal, noise)


def durable_copy(source: Path, folder: Path) -> Measured:
    """What `cp -r` and `sync -f` of the copy take."""
    target = folder / "copy.mlpackage"
    seconds, peak = run(["sh", "-c", 'cp -r "$1" "$2" && sync -f "$2"', "sh", str(source), str(target)])
    shutil.rmtree(target)
    return Measured("durable copy", "cp", seconds, peak, directory_size(source) / 1e6, None)


def measure(source: Path, jobs: dict[str, tuple[str, ...]], repeat: int, with_peers: bool) -> list[Measured]:
    best: dict[tuple[str, str], Measured] = {}

    def keep(measured: Measured) -> None:
        key = measured.job, measured.tool
        if key not in best or measured.seconds < best[key].seconds:
            best[key] = measured

    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for _ in range(repeat):
            keep(durable_copy(source, folder))
            for job, arguments in jobs.items():
                tools = {"corepress": [sys.executable, "-m", "corepress", arguments[0], str(source), "-o"]}
                if with_peers:
                    tools["coremltools"] = [sys.executable, PEER, arguments[0], str(source), "-o"]
                for tool, command in tools.items():
                    target = folder / f"{tool}.mlpackage"
                    seconds, peak = run([*command, str(target), *arguments[1:]])
                    known = best.get((job, tool))
                    snr = known.snr_db if known else quality(source, target, folder)
                    keep(Measured(job, tool, seconds, peak, directory_size(target) / 1e6, snr))
                    shutil.rmtree(target)
    return list(best.values())


def print_table(source: Path, results: list[Measured]) -> None:
    table = Table(title=f"{source.name}, {directory_size(source) / 1e6:.1f} MB")
    for heading in ("job", "tool", "package MB", "SNR dB", "seconds", "peak MB", "speed-up", "copies", "<="):
        table.add_column(heading, justify="left" if heading in ("job", "tool") else "right")
    copy = next(result.seconds for result in results if result.tool == "cp")
    ours = {result.job: result.seconds for result in results if result.tool == "corepress"}
    for result in results:
        table.add_row(
            result.job,
            result.tool,
            f"{result.package_megabytes:.2f}",
            "" if result.snr_db is None else f"{result.snr_db:.2f}",
            f"{result.seconds:.2f}",
            f"{result.peak_megabytes:.0f}",
            f"{result.seconds / ours[result.job]:.1f}x" if result.tool == "coremltools" else "",
            f"{result.seconds / copy:.2f}",
            f"{COPIES[result.job][0]:g}" if result.tool == "corepress" and result.job in COPIES else "",
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--no-peers", action="store_true")
    documents.add_options(parser)
    options = parser.parse_args()
    jobs = JOBS | (IOS18_JOBS if Program(Package.open(options.package)).version >= 9 else {})
    results = measure(options.package, jobs, options.repeat, not options.no_peers)
    print_table(options.package, results)
    settings = {"package": options.package.name, "repeat": options.repeat}
    documents.save(options, settings, [asdict(result) for result in results])


if __name__ == "__main__":
    main()
