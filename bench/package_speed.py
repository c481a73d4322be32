"""A whole package from the shell beside a durable copy of it: seconds, CPU seconds, peak memory and size.

    python bench/package_speed.py UNet.mlpackage [--repeat 3] [--jobs "8 bits; int8"] [--json FILE]

The package is read once before, so that all find it in memory. Copy and jobs take turns and the best of each counts; a
ratio is a job's seconds over those of the copy just before it, the best of the turns, since other work on the machine
slows neighbours alike. A durable copy is `cp -r` and `sync -f` of the copy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

import documents
from corepress.coreml.format.package import Package, directory_size
from corepress.coreml.program.program import Program

GROUPED = ("palettize", "--nbits", "4", "--granularity", "per_grouped_channel", "--group-size")
# Arguments, the ratio to a durable copy that must be reached, and the first specification version that can express it.
JOBS = {
    "4 bits": (("palettize", "--nbits", "4"), 1.5, 7),
    "6 bits": (("palettize", "--nbits", "6"), 1.5, 7),
    "8 bits": (("palettize", "--nbits", "8"), 1.5, 7),
    "int8 per channel": (("quantize",), 1.5, 7),
    "4 bits, groups of 8": ((*GROUPED, "8"), None, 9),
    "4 bits, groups of 16": ((*GROUPED, "16"), 4.0, 9),
    "4 bits, groups of 32": ((*GROUPED, "32"), None, 9),
    "50 % pruned": (("prune", "--target-sparsity", "0.5"), 2.0, 7),
    "int4, blocks of 32": (("quantize", "--dtype", "int4", "--granularity", "per_block"), 2.0, 9),
    "pruned, then 4 bits": (("compress", "--config", "steps.json"), None, 9),
    "mixed recipe": (("compress", "--config", "recipe.json"), None, 9),
    "3.5 bits, chosen": (("compress", "--target-bits", "3.5"), None, 9),
    "decompress of 4 bits": (("decompress",), None, 7),
    "verify of 4 bits": (("verify",), None, 7),
}
CONFIGS = {
    "steps.json": [{"prune": {"target_sparsity": 0.5}}, {"palettize": {"nbits": 4}}],
    "recipe.json": {
        "global": {"palettize": {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 16}},
        "op_types": {"conv": {"palettize": {"nbits": 6}}},
        "weights": {
            "*embed_tokens*": {"quantize": {"dtype": "int8"}},
            "re:.*([vo]_proj|down_proj).*": {"palettize": {"nbits": 6}},
        },
    },
}
COPY = 'cp -r "$1" "$2" && sync -f "$2"'
# Linux counts the memory of the process that starts another one towards the other's peak, so a small one does it.
LAUNCH = """
import os, sys, time
start = time.perf_counter()
process = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, usage = os.wait4(process, 0)
seconds = time.perf_counter() - start
print(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1e3 if sys.platform == "linux" else 1e6))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass
class Measured:
    """The best of several turns of one job."""

    job: str
    seconds: float
    copy_seconds: float
    ratio: float
    required_ratio: float | None
    cpu_seconds: float
    peak_megabytes: float
    package_megabytes: float


def run(command: list[str]) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak megabytes of a process that must succeed."""
    launch = [sys.executable, "-S", "-c", LAUNCH, *command]
    done = subprocess.run(launch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    seconds, cpu_seconds, peak = map(float, done.stdout.split()[-3:])
    return seconds, cpu_seconds, peak


def read_once(package: Path) -> None:
    for folder, _, names in os.walk(package):
        for name in names:
            with open(os.path.join(folder, name), "rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


def measure(source: Path, jobs: list[str], repeat: int, scratch: Path) -> list[Measured]:
    best: dict[str, Measured] = {}
    for name, config in CONFIGS.items():
        (scratch / name).write_text(json.dumps(config))
    program, compressed = [sys.executable, "-m", "corepress"], scratch / "compressed.mlpackage"
    run([*program, "palettize", str(source), "-o", str(compressed), "--nbits", "4", "--quiet"])
    for package in (source, compressed):
        read_once(package)
    for _ in range(repeat):
        for job in jobs:
            arguments, required, _ = JOBS[job]
            target = scratch / "copy.mlpackage"
            copy_seconds, _, _ = run(["sh", "-c", COPY, "sh", str(source), str(target)])
            shutil.rmtree(target)
            target = scratch / "output.mlpackage"
            verb, *options = arguments
            options = [str(scratch / option) if option in CONFIGS else option for option in options]
            if verb == "verify":
                target, command = compressed, [*program, verb, str(source), str(compressed), "--quiet"]
            else:
                given = compressed if verb == "decompress" else source
                command = [*program, verb, str(given), "-o", str(target), "--quiet", *options]
            seconds, cpu_seconds, peak = run(command)
            size = directory_size(target) / 1e6
            if target is not compressed:
                shutil.rmtree(target)
            known = best.get(job)
            turn = Measured(job, seconds, copy_seconds, seconds / copy_seconds, required, cpu_seconds, peak, size)
            if known is not None:
                for name in ("seconds", "copy_seconds", "ratio", "cpu_seconds"):
                    setattr(turn, name, min(getattr(turn, name), getattr(known, name)))
                turn.peak_megabytes = max(turn.peak_megabytes, known.peak_megabytes)
            best[job] = turn
            time.sleep(0.1)
    return list(best.values())


def print_table(source: Path, results: list[Measured]) -> None:
    table = Table(title=f"{source.name}, {directory_size(source) / 1e6:.0f} MB, beside a durable copy")
    for heading in ("job", "seconds", "copy seconds", "ratio", "at most", "CPU seconds", "peak MB", "package MB"):
        table.add_column(heading, justify="left" if heading == "job" else "right")
    for result in results:
        table.add_row(
            result.job,
            f"{result.seconds:.2f}",
            f"{result.copy_seconds:.2f}",
            f"{result.ratio:.2f}",
            "" if result.required_ratio is None else f"{result.required_ratio:.1f}",
            f"{result.cpu_seconds:.2f}",
            f"{result.peak_megabytes:.0f}",
            f"{result.package_megabytes:.0f}",
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    known = "; ".join(JOBS).replace("%", "%%")
    parser.add_argument("--jobs", help=f"names, or beginnings of some, with semicolons between; default: {known}")
    documents.add_options(parser)
    options = parser.parse_args()
    version = Program(Package.open(options.package)).version
    wanted = [job for job in JOBS if version >= JOBS[job][2]]
    if options.jobs:
        names = [name.strip() for name in options.jobs.split(";")]
        wanted = [job for job in wanted if any(job == name if name in JOBS else job.startswith(name) for name in names)]
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        results = measure(options.package, wanted, options.repeat, Path(scratch))
    print_table(options.package, results)
    settings = {
        "package": options.package.name,
        "package_megabytes": directory_size(options.package) / 1e6,
        "repeat": options.repeat,
    }
    documents.save(options, settings, [asdict(result) for result in results])


if __name__ == "__main__":
    main()
