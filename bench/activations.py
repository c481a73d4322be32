"""Activations of 8 bits (W8A8) beside coremltools' `linear_quantize_activations`, with the same samples.

    python bench/calibration_models.py FOLDER
    python bench/activations.py FOLDER [--only encoder crepe face digits] [--seeds 3] [--samples 32] [--json FILE]

Both put pairs of quantize and dequantize around the same operations, and quantize weights to int8 per channel; the
runtime takes the place of Core ML for coremltools. "float" has the int8 weights alone. "corepress, auto" leaves out the
operations that do the most harm, chosen on some of the given samples. Errors are those of the output with the lowest
signal-to-noise ratio (SNR) on the test, in float32. Needs coremltools and torch.

The ranges of coremltools 9 are those of the last sample alone: it overwrites what it noted of earlier ones.
"coremltools, all samples" has that repaired; goals are compared with the better of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import documents
from calibration import Evaluation, in_words, interleaved, mean_and_error
from calibration_models import TASKS, split
from corepress import coreml, runtime

MODES = ("linear", "linear_symmetric")
AUTO = "corepress, auto"
PEERS = ("coremltools", "coremltools, all samples")
MOST_LOST = 0.5  # points of the score
PREDICTOR = Path(__file__).parents[1] / "tests" / "peers"


@dataclass(frozen=True)
class Measured:
    """One way with one division of the samples."""

    model: str
    seed: int
    tool: str
    mode: str
    snr_db: float
    kept_snr_db: float
    score: float
    lost: float
    cpu_seconds: float


def record(value: Any, name: str, ranges: dict[str, dict[str, float]]) -> None:
    """In place of coremltools' functions that note ranges."""
    known = ranges[name]
    known["rmin"] = min(np.min(value), known.get("rmin", np.inf))
    known["rmax"] = max(np.max(value), known.get("rmax", -np.inf))


def theirs(source: Path, target: Path, mode: str, samples: list[dict[str, NDArray[Any]]], *, repaired: bool) -> None:
    """What coremltools makes of a package, predicting with the runtime."""
    import coremltools as ct
    import coremltools.optimize as peer
    from coremltools.optimize.coreml.experimental import _model_debugger, _post_training_quantization

    sys.path.insert(0, str(PREDICTOR))
    import corepress_predictor

    def predict(self: Any, data: Any, state: Any = None) -> Any:
        return corepress_predictor.load(self._spec, self.weights_dir).predict(data)

    ct.models.MLModel.predict = predict
    config, int8 = (
        peer.coreml.OptimizationConfig(global_config=peer.coreml.OpLinearQuantizerConfig(mode=each))
        for each in (mode, "linear_symmetric")
    )
    model = ct.models.MLModel(str(source), skip_model_load=True)
    with contextlib.ExitStack() as stack:
        if repaired:
            debugger = _model_debugger.ModelDebugger
            stack.enter_context(mock.patch.object(debugger, "record_intermediate_output", staticmethod(record)))
            of_inputs = mock.patch.object(
                _post_training_quantization,
                "_update_tensor_range",
                lambda name, value, known: record(value, name, known),
            )
            stack.enter_context(of_inputs)
        activated = peer.coreml.linear_quantize_activations(model, config, samples)
    peer.coreml.linear_quantize_weights(activated, int8).save(str(target))


def measure(name: str, folder: Path, seed: int, count: int, scratch: Path) -> list[Measured]:
    place = folder / name
    source, target = place / "model.mlpackage", scratch / f"{name}.mlpackage"
    with np.load(place / "pool.npz") as pool:
        parts = split(TASKS[name], dict(pool), seed)
    evaluation, kept = (Evaluation(place, parts[part]) for part in ("test", "choose"))
    names = [each for each in parts["fit"] if each not in TASKS[name].labels]
    given = runtime.Samples("activations", interleaved(parts, names), runtime.load(source).description)
    samples = [each for _, each in zip(range(count), given)]  # noqa: B905
    results = []

    def add(tool: str, mode: str, seconds: float) -> None:
        snr, score = evaluation(target)
        lost = evaluation.score - score
        results.append(Measured(name, seed, tool, mode, snr, kept(target)[0], score, lost, seconds))
        print(f"{name}: seed {seed}: {tool}, {mode}: {snr:.2f} dB, {score:.2f} %, {seconds:.1f} CPU s", flush=True)

    coreml.compress(source, target, {"quantize": {}}, overwrite=True)
    add("corepress", "float", 0.0)
    for mode in MODES:
        started = time.process_time()
        coreml.quantize_activations(source, target, samples=samples, mode=mode, overwrite=True)
        add("corepress", mode, time.process_time() - started)
        started = time.process_time()
        options = {"samples": samples, "mode": mode, "operations": "auto"}
        coreml.quantize_activations(source, target, overwrite=True, **options)
        add(AUTO, mode, time.process_time() - started)
        for tool in PEERS:
            started = time.process_time()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                theirs(source, target, mode, samples, repaired=tool != PEERS[0])
            add(tool, mode, time.process_time() - started)
    return results


def markdown(results: list[Measured]) -> str:
    lines = ["| model | tool | mode | SNR dB | score % | CPU s |", "| --- | --- | --- | --: | --: | --: |"]
    for key in dict.fromkeys((each.model, each.tool, each.mode) for each in results):
        some = [each for each in results if (each.model, each.tool, each.mode) == key]
        snr, score = (in_words([getattr(each, what) for each in some]) for what in ("snr_db", "score"))
        seconds = np.mean([each.cpu_seconds for each in some])
        lines.append(f"| {' | '.join((*key, snr, score, f'{seconds:.1f}'))} |")
    lines += ["", "| model | goal | found | met |", "| --- | --- | --: | --- |"]
    for model in dict.fromkeys(each.model for each in results):
        lines += goals(model, [each for each in results if each.model == model])
    return "\n".join(lines) + "\n"


def goals(model: str, results: list[Measured]) -> list[str]:
    def of(tool: str, mode: str) -> list[Measured]:
        return [each for each in results if (each.tool, each.mode) == (tool, mode)]

    rows = []
    for mode in MODES:
        peers = zip(*(of(tool, mode) for tool in PEERS), strict=True)
        best_peers = [max(each.snr_db for each in some) for some in peers]
        differences = [ours.snr_db - peer for ours, peer in zip(of("corepress", mode), best_peers, strict=True)]
        met = mean_and_error(differences)[0] >= -0.05  # both round ranges to float16
        rows.append((f"{mode} at least coremltools'", in_words(differences, " dB"), met))
    ways = zip(*(of(tool, mode) for tool in ("corepress", AUTO) for mode in MODES), strict=True)
    best = [max(each, key=lambda way: way.kept_snr_db) for each in ways]
    lost = [each.lost for each in best]
    of_weights = in_words([each.lost for each in of("corepress", "float")])
    rows.append(
        (
            f"mean score of the best way within {MOST_LOST} points of the original",
            f"{in_words(lost)} lost, {of_weights} by the weights alone",
            mean_and_error(lost)[0] <= MOST_LOST,
        )
    )
    return [f"| {model} | {goal} | {found} | {'yes' if met else '**no**'} |" for goal, found, met in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what calibration_models.py built")
    parser.add_argument("--only", nargs="*", choices=TASKS, default=list(TASKS), metavar="NAME", help="some models")
    parser.add_argument("--seeds", type=int, default=3, help="how often the samples are divided")
    parser.add_argument("--samples", type=int, default=32, help="how many both tools get")
    documents.add_options(parser)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.only:
            for seed in range(arguments.seeds):
                results += measure(name, arguments.folder, seed, arguments.samples, Path(scratch))
    print(markdown(results))
    settings = {"seeds": arguments.seeds, "samples": arguments.samples}
    documents.save(arguments, settings, [asdict(each) for each in results])


if __name__ == "__main__":
    main()
