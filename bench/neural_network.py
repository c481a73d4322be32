"""A neural network of the size of DeepLab in 16, 8 and 4 bits, beside coremltools: sizes, error, times and peak memory.

    python bench/neural_network.py [--repeat 3] [--part 2] [--no-peers] [--json FILE]

The layers are those of a ResNet-101 with a segmentation head, 40 million weights from Student's t distribution. Both
tools run in processes of their own, ours from the shell. The dry run and the check of each result are timed too, as is
inspecting, which does no more than read the file. coremltools 9 clusters for hours and then cannot store the
result (TypeError), so its k-means works on the first `--part` million weights only, and nothing is written.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from corepress import neural_network
from corepress.neural_network.schema import Model

LAUNCHER = str(Path(__file__).with_name("launch.py"))
PEER = str(Path(__file__).with_name("neural_network_peer.py"))
JOBS = ((16, "linear"), (8, "linear"), (4, "linear"), (8, "kmeans_lut"), (4, "kmeans_lut"))
CHECKED = ((8, "linear"), (4, "kmeans_lut"))  # whose dry runs and checks are measured
STAGES = ((64, 64, 256, 3), (256, 128, 512, 4), (512, 256, 1024, 21), (1024, 512, 2048, 3))


@dataclass
class Measured:
    """One job by one tool."""

    job: str
    tool: str
    weights: int
    seconds: float
    cpu_seconds: float
    peak_megabytes: float
    megabytes: float | None
    snr_db: float | None


def shapes() -> Iterator[tuple[int, int, int, int]]:
    """Shapes of the convolutions."""
    yield 64, 3, 7, 7
    for inputs, middle, outputs, blocks in STAGES:
        for block in range(blocks):
            yield middle, outputs if block else inputs, 1, 1
            yield middle, middle, 3, 3
            yield outputs, middle, 1, 1
            if block == 0:
                yield outputs, inputs, 1, 1
    yield 256, 2048, 1, 1
    yield 21, 256, 1, 1


def write_network(path: Path, most: float = math.inf) -> int:
    """Write the network, up to so many weights at least; returns how many."""
    rng, count = np.random.default_rng(0), 0
    model = Model(specificationVersion=1)
    for shape in shapes():
        if count >= most:
            break
        layer = model.neuralNetwork.layers.add(name=f"conv{len(model.neuralNetwork.layers)}")
        params = layer.convolution
        params.outputChannels, params.kernelChannels, params.nGroups, params.hasBias = shape[0], shape[1], 1, True
        params.kernelSize.extend(shape[2:])
        weights = rng.standard_t(5, shape) * math.sqrt(1 / math.prod(shape[1:]))
        biases = rng.standard_normal(shape[0]) * 0.1
        params.weights.floatValue.append(weights.astype("<f4").tobytes())
        params.bias.floatValue.append(biases.astype("<f4").tobytes())
        count += weights.size + biases.size
    path.write_bytes(model.SerializeToString())
    return count


@dataclass(order=True)
class Run:
    """A process that succeeded."""

    seconds: float
    cpu_seconds: float
    peak_megabytes: float
    printed: str


def run(command: list[str]) -> Run:
    """Run a process that must succeed."""
    done = subprocess.run([sys.executable, "-S", LAUNCHER, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    seconds, peak, cpu_seconds = map(float, done.stdout.split())
    return Run(seconds, cpu_seconds, peak, done.stderr)  # the launcher keeps stdout for itself


def measure_ours(source: Path, weights: int, nbits: int, mode: str, repeat: int) -> Measured:
    out = source.with_name("ours.mlmodel")
    how = ["--nbits", str(nbits), "--mode", mode]
    best = _best(["quantize", str(source), "-o", str(out), "--overwrite", "--quiet", *how], repeat)
    return _measured("corepress", source, out, weights, nbits, mode, best)


def measure_checks(source: Path, weights: int, nbits: int, mode: str, repeat: int) -> Iterator[Measured]:
    """The dry run of a job, and the check of what `measure_ours` left."""
    out = source.with_name("ours.mlmodel")
    how = ["--nbits", str(nbits), "--mode", mode]
    for tool, command in (
        ("dry run", ["quantize", str(source), "--dry-run", "--quiet", *how]),
        ("verify", ["verify", str(source), str(out), "--quiet"]),
    ):
        yield _unwritten(_job(nbits, mode), tool, weights, _best(command, repeat))


def measure_reading(source: Path, weights: int, repeat: int) -> Measured:
    """What any command takes: start, and read the file."""
    return _unwritten("none", "inspect", weights, _best(["inspect", str(source)], repeat))


def _unwritten(job: str, tool: str, weights: int, best: Run) -> Measured:
    return Measured(job, tool, weights, best.seconds, best.cpu_seconds, best.peak_megabytes, None, None)


def _best(command: list[str], repeat: int) -> Run:
    return min(run([sys.executable, "-m", "corepress", *command]) for _ in range(repeat))


def measure_theirs(source: Path, weights: int, nbits: int, mode: str) -> Measured:
    out = source.with_name("theirs.mlmodel")
    out.unlink(missing_ok=True)
    result = run([sys.executable, PEER, str(source), str(nbits), mode, str(out)])
    return _measured("coremltools", source, out, weights, nbits, mode, result)


def _measured(tool: str, source: Path, out: Path, weights: int, nbits: int, mode: str, result: Run) -> Measured:
    megabytes = snr_db = None
    if out.exists():
        megabytes = out.stat().st_size / 1e6
        snr_db = neural_network.compare_models(source, out).snr_db
    elif "SNR" in result.printed:
        snr_db = float(result.printed.split("SNR")[1].split()[0])
    job = _job(nbits, mode)
    peak = result.peak_megabytes
    return Measured(job, tool, weights, result.seconds, result.cpu_seconds, peak, megabytes, snr_db)


def _job(nbits: int, mode: str) -> str:
    return f"{nbits} bits {mode}" if nbits < 16 else "16 bits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours; the best counts")
    parser.add_argument("--part", type=float, default=2, help="millions of weights for coremltools' k-means")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder, "whole.mlmodel"), Path(folder, "part.mlmodel")
        count, part_count = write_network(whole), write_network(part, options.part * 1e6)
        size = whole.stat().st_size / 1e6
        rows.append(measure_reading(whole, count, options.repeat))
        for nbits, mode in JOBS:
            rows.append(measure_ours(whole, count, nbits, mode, options.repeat))
            if (nbits, mode) in CHECKED:
                rows.extend(measure_checks(whole, count, nbits, mode, options.repeat))
            if options.no_peers:
                continue
            if mode == "kmeans_lut":
                rows.append(measure_ours(part, part_count, nbits, mode, options.repeat))
                rows.append(measure_theirs(part, part_count, nbits, mode))
            else:
                rows.append(measure_theirs(whole, count, nbits, mode))
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    table = Table(title=f"{count / 1e6:.1f} M weights, {size:.1f} MB as float32; {os.cpu_count()} CPUs{load}")
    for heading in ("job", "tool", "M weights", "s", "CPU s", "M weights/s", "peak MB", "MB", "SNR dB"):
        table.add_column(heading, justify="left" if heading in ("job", "tool") else "right")
    for row in rows:
        millions = row.weights / 1e6
        written = "-" if row.megabytes is None else f"{row.megabytes:.1f}"
        snr = "-" if row.snr_db is None else f"{row.snr_db:.2f}"
        times = (f"{row.seconds:.2f}", f"{row.cpu_seconds:.2f}", f"{millions / row.seconds:.2f}")
        cells = (f"{millions:.1f}", *times, f"{row.peak_megabytes:.0f}")
        table.add_row(row.job, row.tool, *cells, written, snr)
    Console(width=max(112, Console().width)).print(table)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
