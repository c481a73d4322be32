"""Run coremltools' own tests, which its wheel brings, with corepress in the place of what they test.

    python tests/peers/run.py --way optimize            # corepress.optimize.coreml for coremltools.optimize.coreml
    python tests/peers/run.py --way accelerate          # the kernels below coremltools' passes
    python tests/peers/run.py --way torch               # corepress.optimize.torch for coremltools.optimize.torch

They need coremltools with torch, parameterized and pytest; the last one pytest-mock too. Each test runs twice: with
coremltools alone, and this way. A test that fails this way alone, and a call whose decompressed weights are further
from the source than coremltools' own, must be among the known differences; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from known_differences import KNOWN

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
# The package of this tree, where it has been built here; otherwise the installed one.
SOURCES = [str(REPOSITORY / "python")] if list((REPOSITORY / "python" / "corepress").glob("_core*.*[od]")) else []


@dataclass(frozen=True)
class Suite:
    """Some of coremltools' tests.

    Attributes
    ----------
    paths : tuple of str
        Files and folders in its package.
    sample : int
        One in this many is run.
    left_out : str
        What names of tests contain that are not run.
    """

    paths: tuple[str, ...]
    sample: int = 1
    left_out: str = ""


_TORCH = "test/optimize/torch"
_OF_MODELS = {
    "models": Suite(("test/optimize/coreml/test_post_training_quantization.py",)),
    "passes": Suite(("test/optimize/coreml/test_passes.py",)),
    "deprecated": Suite(("test/ml_program/test_compression.py",)),
    "utils": Suite(("test/optimize/test_utils.py",)),
    "api": Suite(("test/optimize/api/test_optimize_api.py",)),
}
_OF_PYTORCH = {
    "palettization": Suite((f"{_TORCH}/palettization",)),
    "pruning": Suite((f"{_TORCH}/pruning",)),
    "layerwise": Suite((f"{_TORCH}/layerwise_compression",)),
    "post_training": Suite((f"{_TORCH}/quantization/test_post_training_quantization.py",)),
    "quantizer": Suite((f"{_TORCH}/quantization/test_quantizer.py",)),
    "configure": Suite((f"{_TORCH}/quantization/test_configure.py",), sample=11),
    "quantization": Suite(
        tuple(f"{_TORCH}/quantization/test_{name}.py" for name in ("utils", "observers", "learnable_fake_quantize"))
    ),
    # New processes would import coremltools' own modules again.
    "torch_utils": Suite((f"{_TORCH}/test_utils",), left_out="parallel"),
    "surface": Suite(
        tuple(f"{_TORCH}/{name}.py" for name in ("test_api_surface", "test_base_optimizer", "smoke_test"))
    ),
}
SUITES = {"optimize": _OF_MODELS, "accelerate": _OF_MODELS, "torch": _OF_PYTORCH}


def package_folder() -> Path:
    found = importlib.util.find_spec("coremltools")
    if found is None or found.origin is None:
        sys.exit("run.py: coremltools is not installed")
    return Path(found.origin).parent


def run_suite(way: str, name: str, suite: Suite, results: Path, *, fresh: bool, versions: str) -> dict:
    """The outcomes of a suite, and the calls that were compared; of coremltools alone they are kept for next time."""
    file = results / f"{way}-{name}.json"
    if fresh or way != "none" or not file.exists():
        folder = package_folder()
        paths = [str(HERE), str(HERE.parent / "coreml"), *SOURCES, os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "COREPRESS_PEERS_WAY": way,
            "COREPRESS_PEERS_RESULTS": str(file),
            "COREPRESS_PEERS_SAMPLE": str(suite.sample),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",  # scikit-learn's threads spend most of their time waiting for each other
            # All deployment targets, not only the oldest.
            "RUN_BACKWARD_COMPATIBILITY": "1" if versions == "all" else "0",
        }
        options = ["-q", "-p", "no:cacheprovider", "-p", "peer_plugin", "-c", os.devnull, "--rootdir", str(folder)]
        options += ["-k", f"not {suite.left_out}"] if suite.left_out else []
        with (results / f"{way}-{name}.log").open("w") as log:
            subprocess.run(
                [sys.executable, "-m", "pytest", *options, "--tb=short", *(str(folder / path) for path in suite.paths)],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
    return json.loads(file.read_text())


def explanation(way: str, test: str) -> str | None:
    return next((why for pattern, why in KNOWN[way].items() if fnmatch.fnmatchcase(test, f"*{pattern}*")), None)


def report(way: str, name: str, suite: Suite, alone: dict, replaced: dict) -> int:
    """Print what differs; return the number of differences that are not known."""
    before, after = alone["outcomes"], replaced["outcomes"]
    counts = Counter(kind for kind, _ in after.values())
    print(
        f"\n{name} ({', '.join(suite.paths)}): {len(after)} run; "
        + ", ".join(f"{n} {kind}" for kind, n in counts.items())
    )
    print(
        "  with coremltools alone: " + ", ".join(f"{n} {k}" for k, n in Counter(k for k, _ in before.values()).items())
    )
    for reason, number in Counter(reason for kind, reason in after.values() if kind == "skipped").items():
        print(f"  {number} skipped: {reason.removeprefix('Skipped: ')}")
    unknown = 0
    for test, (kind, message) in after.items():
        if kind in ("failed", "xpassed") and before.get(test, ["missing"])[0] != kind:
            why = explanation(way, test)
            unknown += why is None
            print(f"  {'UNEXPLAINED' if why is None else 'known'}: {test.split('::', 1)[1]}: {why or message[:300]}")
    unknown += sum(test not in after for test in before)
    return unknown + (0 if way == "torch" else report_calls(way, replaced["calls"]))


def report_calls(way: str, calls: list[dict]) -> int:
    by_status = Counter((call["function"], call["status"]) for call in calls)
    for (function, status), number in sorted(by_status.items()):
        print(f"  {function}: {number} calls {status}")
    compared = [call for call in calls if call["status"] == "compared"]
    weights = sum(call["weights"] for call in compared)
    ratio = max((call["largest_ratio"] for call in compared), default=0.0)
    print(f"  {weights} weights compared; largest squared error relative to coremltools' own: {ratio:.6f}")
    unknown = 0
    for call in compared:
        for name, error, allowed in call["larger"]:
            why = explanation(way, f"{call['test']} {call['function']} {name}")
            unknown += why is None
            label = "UNEXPLAINED" if why is None else "known"
            test = call["test"].split("::", 1)[-1]
            print(f"  {label} larger error: {test} {call['function']} {name}: {error:.6g} > {allowed:.6g} {why or ''}")
    return unknown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=sorted(KNOWN), required=True)
    parser.add_argument(
        "--results", type=Path, default=REPOSITORY / "build" / "peers", help="folder of logs and results"
    )
    parser.add_argument("--fresh", action="store_true", help="run coremltools alone again too")
    parser.add_argument("--versions", choices=["all", "oldest"], default="all", help="deployment targets to test")
    names = ", ".join(dict.fromkeys(name for suites in SUITES.values() for name in suites))
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{names}; all of the way if none is given")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    suites, unknown = SUITES[arguments.way], 0
    for name in arguments.suites or suites:
        if name not in suites:
            parser.error(f"--way {arguments.way} has no suite {name}; it has {', '.join(suites)}")
        alone, replaced = (
            run_suite(way, name, suites[name], arguments.results, fresh=arguments.fresh, versions=arguments.versions)
            for way in ("none", arguments.way)
        )
        unknown += report(arguments.way, name, suites[name], alone, replaced)
    print(f"\n{unknown} differences that are not known")
    return min(unknown, 1)


if __name__ == "__main__":
    sys.exit(main())
