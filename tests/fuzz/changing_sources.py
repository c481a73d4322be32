"""Change a model while it is read: each run must end with an error, or with a right result, and never by a signal.

python tests/fuzz/changing_sources.py --runs 200 [--seed N]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from corepress import coreml
from corepress.benchmark.packages import MODEL, WEIGHTS, build_package

VERBS = {
    "palettize": ["palettize", "SOURCE", "-o", "OUTPUT", "--nbits", "4"],
    "quantize": ["quantize", "SOURCE", "-o", "OUTPUT"],
    "prune": ["prune", "SOURCE", "-o", "OUTPUT", "--target-sparsity", "0.5"],
    "dry run": ["palettize", "SOURCE", "--nbits", "4", "--dry-run"],
    "inspect": ["inspect", "SOURCE"],
    "verify": ["verify", "SOURCE", "SAME"],
    "compare": ["compare", "SOURCE", "SAME"],
}
CHANGES = ("truncated", "rewritten", "replaced", "removed", "program rewritten")
# One line when the command line is known, so that a moment is one of the work and not of the start of Python.
MAIN = (
    "import sys; from corepress import coreml; from corepress.cli import main; print(flush=True); sys.exit(main.main())"
)


def build(package: Path, side: int = 1024, layers: int = 12, seed: int = 0) -> Path:
    """A package of linear layers with drawn float16 weights."""
    rng = np.random.default_rng(seed)
    return build_package(package, (rng.standard_normal((side, side)).astype(np.float16) for _ in range(layers)))


def change(package: Path, how: str, rng: random.Random) -> None:
    """Change a package in place."""
    weights, model = package / WEIGHTS, package / MODEL
    if how == "truncated":
        os.truncate(weights, rng.randrange(weights.stat().st_size))
    elif how == "rewritten":
        size = weights.stat().st_size
        with open(weights, "r+b") as file:
            for _ in range(16):
                file.seek(rng.randrange(size))
                file.write(rng.randbytes(4096))
    elif how == "replaced":
        other = weights.with_suffix(".new")
        other.write_bytes(rng.randbytes(weights.stat().st_size))
        os.replace(other, weights)
    elif how == "removed":
        shutil.rmtree(package)
    else:
        data = bytearray(model.read_bytes())
        data[rng.randrange(len(data))] ^= 1
        model.write_bytes(data)


def duration(verb: str, original: Path) -> float:
    """Seconds that a run takes once the command line is known."""
    with tempfile.TemporaryDirectory() as folder:
        with _started(verb, original, original, Path(folder, "output.mlpackage")) as process:
            started = time.perf_counter()
            process.communicate(timeout=300)
            assert process.returncode == 0, verb
        return time.perf_counter() - started


def _started(verb: str, source: Path, same: Path, output: Path) -> subprocess.Popen[str]:
    names = {"SOURCE": str(source), "OUTPUT": str(output), "SAME": str(same)}
    command = [sys.executable, "-c", MAIN, *(names.get(part, part) for part in VERBS[verb])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def run(verb: str, how: str, delay: float, rng: random.Random, original: Path) -> str:
    """One run: how it ended. AssertionError if that must not be."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(shutil.copytree(original, Path(folder, "source.mlpackage")))
        output = Path(folder, "output.mlpackage")
        with _started(verb, source, original, output) as process:
            time.sleep(delay)
            change(source, how, rng)
            _, errors = process.communicate(timeout=300)
        left = {path.name for path in Path(folder).iterdir()} - {"source.mlpackage"}
        assert process.returncode in (0, 1), f"exit code {process.returncode}: {errors}"
        assert "Traceback" not in errors, errors
        if process.returncode == 1:
            assert not left, f"left behind: {left}"
            return "an error" if "nothing was written" not in errors else "SourceChangedError"
        if output.exists():  # the change came after the last look, or before the first; never a mixture
            problems = [_problems(before, output) for before in (original, source)]
            assert not all(problems), problems
        return "a right result"


def _problems(source: Path, output: Path) -> str:
    """What is wrong with a result, if it is to be that of `source`."""
    try:
        return "\n".join(coreml.verify(source, output).all_problems)
    except (OSError, ValueError) as error:  # it was removed, or changed to what is no package
        return str(error)


def main(arguments: list[str] | None = None) -> dict[str, int]:
    """Run; the number of runs by how they ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    ends: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        original = build(Path(folder, "original.mlpackage"))
        longest = {verb: duration(verb, original) for verb in VERBS}
        for index in range(options.runs):
            verb, how = rng.choice(list(VERBS)), rng.choice(CHANGES)
            delay = rng.uniform(0, longest[verb])
            try:
                end = run(verb, how, delay, rng, original)
            except AssertionError as error:
                raise SystemExit(
                    f"seed {options.seed}, run {index}: {verb}, {how} after {delay:.3f} s: {error}"
                ) from None
            ends[end] = ends.get(end, 0) + 1
    print(f"seed {options.seed}: {options.runs} runs: {ends}")
    return ends


if __name__ == "__main__":
    main()
