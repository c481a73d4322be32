"""A palettized package by each way to the kernels, beside coremltools alone: times and peak memory of processes.

    python bench/dropins.py MODEL.mlpackage [--nbits 4] [--ways coremltools accelerate optimize corepress] [--json FILE]

Each way is a process of its own that loads the package, palettizes its weights, and saves the result: coremltools'
``palettize_weights`` alone and under `corepress.accelerate`, that of `corepress.optimize.coreml`, and
`corepress.coreml.compress`. Imports are not counted in the time, but in the memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

WAYS = {
    "coremltools": "coremltools alone",
    "accelerate": "coremltools under corepress.accelerate()",
    "optimize": "corepress.optimize.coreml",
    "corepress": "corepress.coreml.compress",
}


class Stopwatch:
    """Seconds on the clock, and of all CPUs together, since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        return {
            "seconds": time.perf_counter() - self._started[0],
            "cpu_seconds": time.process_time() - self._started[1],
        }


def work(way: str, source: str, destination: str, nbits: int) -> dict[str, float]:
    """Go one way in this process; return the seconds it took."""
    if way == "corepress":
        from corepress import coreml

        watch = Stopwatch()
        coreml.compress(source, destination, {"palettize": {"nbits": nbits}})
        return watch.seconds()
    import coremltools
    import coremltools.optimize.coreml as peer

    import corepress

    functions = peer
    if way == "accelerate":
        corepress.accelerate.install()
    elif way == "optimize":
        import corepress.optimize.coreml as functions
    config = peer.OptimizationConfig(global_config=peer.OpPalettizerConfig(nbits=nbits))
    watch = Stopwatch()
    model = coremltools.models.MLModel(source, skip_model_load=True)
    functions.palettize_weights(model, config).save(destination)
    return watch.seconds()


def _link_weights(source: str, target: str) -> None:
    if Path(source).suffix == ".bin":
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def measure(way: str, source: Path, nbits: int) -> dict[str, float | str]:
    """Go one way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        # Opening a package with coremltools rewrites its manifest: it is given a copy, whose weights are links.
        copy = Path(folder, "source.mlpackage")
        shutil.copytree(source, copy, copy_function=_link_weights)
        command = [sys.executable, __file__, "--work", way, "--nbits", str(nbits), str(copy)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
        if run.returncode:
            raise SystemExit(f"{way} failed:\n{run.stderr[-2000:]}")
        return {"way": way, **json.loads(run.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--nbits", type=int, default=4)
    parser.add_argument("--ways", nargs="+", choices=[*WAYS], default=[*WAYS])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", choices=[*WAYS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        seconds = work(arguments.work, str(arguments.model), "out.mlpackage", arguments.nbits)
        unit = 1e6 if sys.platform == "darwin" else 1e3  # bytes there, kilobytes elsewhere
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        size = sum(file.stat().st_size for file in Path("out.mlpackage").rglob("*") if file.is_file()) / 1e6
        print(json.dumps({**seconds, "peak_megabytes": peak, "package_megabytes": size}))
        return
    rows = []
    table = Table(
        "way",
        "seconds",
        "CPU seconds",
        "peak MB",
        "package MB",
        title=f"{arguments.model.name}, {arguments.nbits} bits",
    )
    for way in arguments.ways:
        rows.append(measure(way, arguments.model.resolve(), arguments.nbits))
        numbers = (f"{rows[-1][key]:,.1f}" for key in ("seconds", "cpu_seconds", "peak_megabytes", "package_megabytes"))
        table.add_row(WAYS[way], *numbers)
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
