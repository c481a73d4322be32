"""Run coremltools' own tests, which its wheel brings, and predict in them with corepress in place of Core ML.

    python tests/peers/predict.py                          # everything: 64,000 tests, several hours
    python tests/peers/predict.py ops nn --sample 100      # one test in a hundred

They need coremltools with a NumPy that it can convert with, torch and pytest. The exit code is 1 if a test fails that
predicts, or asks for a prediction, and no known difference explains it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from known_differences import PREDICTIONS
from run import HERE, REPOSITORY, SOURCES, package_folder

_TORCH = "converters/mil/frontend/torch/test"
SUITES = {
    "ops": ["converters/mil/mil/ops/tests"],
    "torch": [
        f"{_TORCH}/test_torch_ops.py",
        f"{_TORCH}/test_torch_stateful_model.py",
        f"{_TORCH}/test_torch_quantization_ops.py",
    ],
    "nn": ["test/neural_network"],
    "io": [
        "converters/mil/test_inputs_outputs_shape.py",
        "converters/mil/backend/mil/test_load.py",
        f"{_TORCH}/test_torch_conversion_api.py",
        "test/pipeline",
        "test/modelpackage",
        "test/api",
    ],
    "compression": ["test/optimize/coreml", "test/ml_program"],
    "passes": ["converters/mil/mil/passes/tests", "converters/mil/backend"],
}
KINDS = ("compared", "uncompared", "never predicts", "failed", "known", "unsupported", "cannot be converted", "skipped")


def run_suite(suite: str, results: Path, options: argparse.Namespace) -> dict[str, dict]:
    file, folder = results / f"predict-{suite}.json", package_folder()
    file.unlink(missing_ok=True)
    paths = [str(HERE), *SOURCES, os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "COREPRESS_PEERS_RESULTS": str(file),
        "COREPRESS_PEERS_SAMPLE": options.sample or "",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "INCLUDE_MIL_FP32_UNIT_TESTS": "1",  # whose tolerances say something
        "RUN_BACKWARD_COMPATIBILITY": "1" if options.versions == "all" else "0",
    }
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "prediction_plugin", "-c", os.devnull, "--rootdir", str(folder)]
    arguments += ["-W", "ignore", "--continue-on-collection-errors", "--tb=short"]
    arguments += ["-k", options.match] if options.match else []
    with (results / f"predict-{suite}.log").open("w") as log:
        subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *(str(folder / path) for path in SUITES[suite])],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not file.exists():
        sys.exit(f"{suite}: pytest ended early; see {results / f'predict-{suite}.log'}")
    found: dict[str, dict] = json.loads(file.read_text())
    return found


def kind_of(test: str, result: dict) -> str:
    """What a test shows about predictions."""
    if result["outcome"] in ("skipped", "expected failure"):
        return "skipped"
    if result["outcome"] == "passed":
        if not result.get("predicted"):
            return "never predicts"
        return "compared" if result.get("compared") else "uncompared"
    if not result.get("asked"):
        return "cannot be converted"
    if "UnsupportedOperationError" in result["message"]:
        return "unsupported"
    return "known" if explanation(test) else "failed"


def explanation(test: str) -> str | None:
    return next((why for pattern, why in PREDICTIONS.items() if fnmatch.fnmatchcase(test, f"*{pattern}*")), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(SUITES)}; all if none is given")
    parser.add_argument("--sample", help="one test in so many: K, or K:OFFSET for another part")
    parser.add_argument("--match", help="pytest's -k")
    parser.add_argument("--versions", choices=["all", "oldest"], default="oldest", help="deployment targets to test")
    parser.add_argument(
        "--results", type=Path, default=REPOSITORY / "build" / "peers", help="folder of logs and results"
    )
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    print("suite        " + "".join(f"{kind:>20}" for kind in KINDS))
    wrong = 0
    for suite in options.suites or SUITES:
        outcomes = run_suite(suite, options.results, options)
        kinds = {test: kind_of(test, result) for test, result in outcomes.items()}
        counts = Counter(kinds.values())
        print(f"{suite:13}" + "".join(f"{counts[kind]:20}" for kind in KINDS), flush=True)
        for test, kind in kinds.items():
            if kind in ("failed", "unsupported"):
                print(f"  {kind}: {test.split('::', 1)[1]}: {outcomes[test]['message'][:200]}")
            elif kind == "known":
                print(f"  known: {test.split('::', 1)[1]}: {explanation(test)}")
        wrong += counts["failed"] + counts["unsupported"]
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
