"""Kill runs that replace a package: it must be whole at any moment, and the next run leaves nothing beside it.

python tests/fuzz/killed_runs.py --runs 1000 [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from changing_sources import MAIN, build

from corepress.benchmark.packages import MODEL, WEIGHTS

# Each replaces what the other one made.
VERBS = (["palettize", "--nbits", "4"], ["quantize"])


def content(package: Path) -> tuple[bytes, ...]:
    """The files of a package."""
    return tuple((package / name).read_bytes() for name in ("Manifest.json", MODEL, WEIGHTS))


def command(verb: list[str], source: Path, output: Path) -> list[str]:
    """A command line that replaces a package."""
    name, *options = verb
    return [sys.executable, "-c", MAIN, name, str(source), "-o", str(output), "--overwrite", "--quiet", *options]


def main(arguments: list[str] | None = None) -> dict[str, int]:
    """Run; how many runs were killed, how many left something, and how many packages were old and new."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    counts = dict.fromkeys(("killed", "left something", "old", "new"), 0)
    with tempfile.TemporaryDirectory() as folder:
        source, output = build(Path(folder, "source.mlpackage"), side=128, layers=4), Path(folder, "output.mlpackage")
        results, longest = [], 0.0
        for verb in VERBS:
            started = time.perf_counter()
            subprocess.run(command(verb, source, output), check=True, stdout=subprocess.DEVNULL)
            longest = max(longest, time.perf_counter() - started)
            results.append(content(output))
        old = 1
        for index in range(options.runs):
            where = f"seed {options.seed}, run {index}"
            with subprocess.Popen(command(VERBS[1 - old], source, output), stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(rng.uniform(0, 0.5 * longest))
                process.send_signal(signal.SIGKILL)
                process.wait()
            if process.returncode not in (0, -signal.SIGKILL):
                raise SystemExit(f"{where}: exit code {process.returncode}")
            found = content(output)
            if found not in results:
                raise SystemExit(f"{where}: the package is neither the old one nor the new one")
            counts["killed"] += process.returncode == -signal.SIGKILL
            counts["old" if found == results[old] else "new"] += 1
            if len(list(Path(folder).iterdir())) > 2:
                counts["left something"] += 1
                subprocess.run(command(VERBS[1 - old], source, output), check=True, capture_output=True)
                names = sorted(path.name for path in Path(folder).iterdir())
                if names != [output.name, source.name]:
                    raise SystemExit(f"{where}: the next run left {names}")
                found = content(output)
            old = results.index(found)
    print(f"seed {options.seed}: {options.runs} runs: {counts}")
    return counts


if __name__ == "__main__":
    main()
