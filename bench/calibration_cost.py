"""What calibration costs on a package: CPU seconds, time and memory of each stage.

    python bench/calibration_cost.py PACKAGE [--samples 16] [--probes 2] [--target-bits 3.5] [--inputs PATH]
                                     [--folder DIR] [--threads N] [--json FILE]

Samples are drawn unless --inputs names some: their values do not change what calibration costs. --probes is the number
of random probes of each of the samples that are kept (every fourth), so that 16 samples with 2 probes make 8 gradients.
With --target-bits the model is then compressed to that many bits, by these statistics and without a run of recipes on
kept samples, and the error of the outputs that was predicted is printed with the one on other drawn inputs.

`private` is memory that is the process's own (RssAnon), at most in the stage; `resident` also counts pages of files
that are mapped, which the system takes back when it needs them. The model's weights, as they are held, are in both.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import documents
from corepress import coreml
from corepress.runtime.opening import open_model

_EVERY = 0.05  # seconds between two looks at the memory
_STATUS = Path("/proc/self/status")


@dataclass
class Stage:
    """What a stage took.

    Attributes
    ----------
    name : str
        Its name.
    cpu_seconds, seconds : float
        Time of all processors, and of the clock.
    private, resident : int
        Bytes at most, while it ran.
    """

    name: str
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    private: int = 0
    resident: int = 0


@dataclass
class Stages:
    """Divides what a process uses by the stage that it is in."""

    found: dict[str, Stage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._now = ""
        self._cpu, self._clock = time.process_time(), time.perf_counter()
        self._lock, self._ended = threading.Lock(), threading.Event()

    def begin(self, name: str) -> None:
        """Count what was used since the last call for the stage until now, and begin another."""
        with self._lock:
            cpu, clock = time.process_time(), time.perf_counter()
            if self._now:
                stage = self.found[self._now]
                stage.cpu_seconds += cpu - self._cpu
                stage.seconds += clock - self._clock
            self._cpu, self._clock, self._now = cpu, clock, name
            self.found.setdefault(name, Stage(name))
        self.look()

    def look(self) -> None:
        """Note the memory that is used now."""
        private, resident = memory()
        with self._lock:
            if self._now:
                stage = self.found[self._now]
                stage.private, stage.resident = max(stage.private, private), max(stage.resident, resident)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look at the memory all the time."""
        self._ended.clear()
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()
            self.begin("")
            del self.found[""]

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self.look()


def memory() -> tuple[int, int]:
    """Bytes of this process's own memory, and of all of it that is resident; zeros where the system does not say."""
    if not _STATUS.exists():
        return 0, 0
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    private, resident = (1024 * int(lines.get(name, "0").split()[0]) for name in ("RssAnon", "VmRSS"))
    return private, resident


def drawn_samples(package: str, count: int) -> list[dict[str, Any]]:
    """Samples of normal numbers, as the model takes them."""
    with open_model(package) as opened:  # without its weights, which would be in memory
        description = opened.root.describe(opened.root.function(None))
    rng = np.random.default_rng(0)
    return [
        {
            each.name: rng.standard_normal(each.shape).astype(each.dtype)
            if np.dtype(each.dtype).kind == "f"
            else rng.integers(0, 2, each.shape, each.dtype)
            for each in description.inputs
        }
        for _ in range(count)
    ]


def compressed(options: argparse.Namespace, statistics: Path, package: Path, stages: Stages) -> Iterator[str]:
    """Compress to the target, and yield what was predicted and what is so."""
    shared: dict[str, Any] = {"calibration": statistics, "num_threads": options.threads}
    stages.begin("allocation")
    found = coreml.allocate(options.package, target_bits=options.target_bits, check=False, **shared)
    stages.begin("compression")
    report = coreml.compress(options.package, package, found, **shared)
    stages.begin("verification")
    yield coreml.verify(options.package, package, num_threads=options.threads).totals
    stages.begin("comparison")
    comparison = coreml.compare(options.package, package, predictions=True, draw=4, precision="float32")
    predicted, measured = found.predicted.recipe, min(each.snr_db for each in comparison.outputs)
    yield f"{predicted.bytes:,} bytes predicted, {report.bytes_after:,} written"
    yield f"SNR of the outputs {predicted.snr_db:.1f} dB predicted, {measured:.1f} dB on drawn inputs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--probes", type=int, default=2)
    parser.add_argument("--target-bits", type=float)
    parser.add_argument("--inputs")
    parser.add_argument("--folder", help="where the files are written; next to the package if it is not given")
    parser.add_argument("--statistics", type=Path, help="keep the statistics in this file")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    documents.add_options(parser)
    options = parser.parse_args()
    inputs = options.inputs or drawn_samples(options.package, options.samples)
    folder = Path(options.folder or Path(options.package).parent)
    stages = Stages()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=folder) as work, stages.watching():

        def progress(each: Any) -> None:
            stages.begin(each.stage.partition(" (")[0])

        file = options.statistics or Path(work) / "model.calibration"
        coreml.calibrate(
            options.package,
            inputs,
            file,
            probes=options.probes,
            num_threads=options.threads,
            progress=progress,
            overwrite=True,
        )
        size = file.stat().st_size
        told = [f"load before {load:.1f}; statistics {size / 1e9:.2f} GB"]
        if options.target_bits is not None:
            told += compressed(options, file, Path(work) / "compressed.mlpackage", stages)
    table = Table("stage", "CPU", "time", "private", "resident")
    for stage in stages.found.values():
        table.add_row(
            stage.name,
            f"{stage.cpu_seconds:.1f} s",
            f"{stage.seconds:.1f} s",
            f"{stage.private / 1e9:.2f} GB",
            f"{stage.resident / 1e9:.2f} GB",
        )
    total = Stage(
        "all",
        sum(each.cpu_seconds for each in stages.found.values()),
        sum(each.seconds for each in stages.found.values()),
        max(each.private for each in stages.found.values()),
        max(each.resident for each in stages.found.values()),
    )
    table.add_row(
        total.name,
        f"{total.cpu_seconds:.1f} s",
        f"{total.seconds:.1f} s",
        f"{total.private / 1e9:.2f} GB",
        f"{total.resident / 1e9:.2f} GB",
    )
    console = Console()
    console.print(table)
    for line in told:
        console.print(line)
    lines = [asdict(each) for each in (*stages.found.values(), total)]
    documents.save(options, {"samples": options.samples, "probes": options.probes, "load": load}, lines)


if __name__ == "__main__":
    main()
