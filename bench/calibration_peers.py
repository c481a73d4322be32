"""Error feedback beside coremltools' own: GPTQ and SparseGPT on the torch form of the same layers.

    python bench/calibration_models.py FOLDER --only face digits
    python bench/calibration_peers.py FOLDER [--seeds 3] [--json FILE]

`coremltools.optimize.torch.layerwise_compression` compresses sequences of layers; the face and digit networks are
such. Both get the same samples and leave the same layers unchanged; errors are those of the output with the lowest
signal-to-noise ratio (SNR), on the test, in float32. Bits are those of codes, tables, scales and zero points of what is
compressed. Seconds are of the CPU, with the forward runs, without imports. Needs coremltools with a NumPy that it can
convert with, and torch.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import documents
from calibration import Evaluation, in_words, interleaved
from calibration_models import TASKS, digits_module, face_module, split
from corepress import coreml, runtime

if TYPE_CHECKING:
    from torch import nn

Arrays = dict[str, NDArray[Any]]
MODULES: dict[str, Callable[[Path], Any]] = {"face": lambda folder: face_module(), "digits": digits_module}
LAYERS = {"face": ("conv2", "conv3", "dense4"), "digits": ("conv2", "conv3", "dense1")}  # of more than 2,048 weights
OUTPUTS = {"face": ("box", "probability"), "digits": ("logits",)}
GPTQ, SPARSE = {"algorithm": "gptq"}, {"algorithm": "sparse_gpt"}
# `per_block` counts input channels of linear layers, and of convolutions together with all their taps.
THEIRS = {
    f"{bits} bits": {
        f"GPTQ, {bits} bits per channel": GPTQ | {"weight_dtype": f"uint{bits}"},
        f"GPTQ, {bits} bits per channel, affine": GPTQ
        | {"weight_dtype": f"uint{bits}", "quantization_scheme": "affine"},
        f"GPTQ, {bits} bits per tensor, affine": GPTQ
        | {"weight_dtype": f"uint{bits}", "quantization_scheme": "affine", "granularity": "per_tensor"},
        f"GPTQ, {bits} bits per channel, NormalFloat": GPTQ
        | {"weight_dtype": f"uint{bits}", "enable_normal_float": True},
        f"GPTQ, {bits} bits per channel, columns by activations": GPTQ
        | {"weight_dtype": f"uint{bits}", "use_activation_order_heuristic": True},
    }
    for bits in (4, 3)
} | {
    "half pruned": {"SparseGPT": SPARSE | {"target_sparsity": 0.5}, "SparseGPT, 2 of 4": SPARSE | {"n_m_ratio": [2, 4]}}
}
GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
OURS: dict[str, dict[str, dict[str, Any]]] = {
    f"{bits} bits": {
        f"palettes of {bits} bits, one table": {"palettize": {"nbits": bits}},
        f"palettes of {bits} bits, scales per channel": {
            "palettize": {"nbits": bits, "enable_per_channel_scale": True}
        },
        f"palettes of {bits} bits, groups of 16 channels": {"palettize": {"nbits": bits} | GROUPS},
    }
    for bits in (4, 3)
}
OURS["4 bits"]["int4 per channel"] = {"quantize": {"dtype": "int4", "granularity": "per_channel"}}
OURS["4 bits"]["int4, blocks of 32"] = {"quantize": {"dtype": "int4", "granularity": "per_block", "block_size": 32}}
OURS["half pruned"] = {
    "pruned": {"prune": {"target_sparsity": 0.5}},
    "pruned, 2 of 4": {"prune": {"n_m_ratio": [2, 4]}},
}


@dataclass(frozen=True)
class Measured:
    """One way to compress a network with one division of the samples."""

    model: str
    seed: int
    form: str
    tool: str
    way: str
    bits: float | None
    snr_db: float
    score: float
    cpu_seconds: float


def theirs(network: nn.Module, name: str, options: dict[str, Any], images: NDArray[Any]) -> tuple[nn.Module, float]:
    """The network as coremltools compresses it, and CPU seconds."""
    import torch
    from coremltools.optimize.torch.layerwise_compression import LayerwiseCompressor, LayerwiseCompressorConfig

    config = LayerwiseCompressorConfig.from_dict(
        {
            "module_name_configs": {layer: dict(options) for layer in LAYERS[name]},
            "input_cacher": "default",
            "calibration_nsamples": len(images),
        }
    )
    started = time.process_time()
    compressor = LayerwiseCompressor(copy.deepcopy(network), config)
    found = compressor.compress([torch.from_numpy(images[row : row + 1]) for row in range(len(images))], device="cpu")
    return found, time.process_time() - started


def bits_of(network: nn.Module, name: str, options: dict[str, Any]) -> float | None:
    """Bits per weight of codes, scales (float16) and zero points; None of pruned weights."""
    if options["algorithm"] != "gptq":
        return None
    layers = [network.get_submodule(layer).weight for layer in LAYERS[name]]
    bits = int(options["weight_dtype"].removeprefix("uint"))
    scales = [1 if options.get("granularity") == "per_tensor" else len(weight) for weight in layers]
    per_scale = 16 + (bits if options.get("quantization_scheme") == "affine" else 0)
    return bits + per_scale * sum(scales) / sum(weight.numel() for weight in layers)


def outputs_of(network: nn.Module, name: str, images: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    import torch

    found = []
    with torch.inference_mode():
        for row in range(len(images)):
            values = network(torch.from_numpy(images[row : row + 1]))
            values = values if isinstance(values, tuple) else (values,)
            found.append({key: value.numpy() for key, value in zip(OUTPUTS[name], values, strict=True)})
    return found


def measure(name: str, folder: Path, seed: int, scratch: Path) -> list[Measured]:
    place = folder / name
    with np.load(place / "pool.npz") as pool:
        parts = split(TASKS[name], dict(pool), seed)
    samples, test = interleaved(parts, ["image"]), parts["test"]
    network, source = MODULES[name](place), place / "model.mlpackage"
    rows = [{key: array[row] for key, array in test.items()} for row in range(len(test["image"]))]
    expected = outputs_of(network, name, test["image"])
    metric = f"{place / 'score.py'}:accuracy"
    results = []
    for form, ways in THEIRS.items():
        for way, options in ways.items():
            try:
                found, seconds = theirs(network, name, options, samples["image"])
            except Exception as error:
                print(f"{name}: coremltools: {way}: {type(error).__name__}: {error}", flush=True)
                continue
            outputs = outputs_of(found.eval(), name, test["image"])
            snr, score = (runtime.evaluate(each, rows, outputs, expected) for each in ("snr", metric))
            bits = bits_of(network, name, options)
            results.append(Measured(name, seed, form, "coremltools", way, bits, snr, score, seconds))
    evaluation = Evaluation(place, test)
    started = time.process_time()
    statistics = coreml.calibrate(source, samples, candidates=None)
    calibrating = time.process_time() - started
    for form, ours in OURS.items():
        for way, config in ours.items():
            for calibration in (None, statistics):
                target = scratch / f"{name}.mlpackage"
                started = time.process_time()
                report = coreml.compress(source, target, config, calibration=calibration, overwrite=True)
                seconds = time.process_time() - started + (calibrating if calibration else 0)
                compressed = [each for each in report.weights if each.status == "compressed"]
                count = sum(math.prod(each.shape) for each in compressed)
                bits = 8 * sum(each.bytes_after for each in compressed) / count if form != "half pruned" else None
                label = way if calibration else f"{way}, without data"
                results.append(Measured(name, seed, form, "corepress", label, bits, *evaluation(target), seconds))
    return results


def markdown(results: list[Measured]) -> str:
    lines = [
        "| model | form | tool | way | bits | SNR dB | score % | CPU s |",
        "| --- | --- | --- | --- | --: | --: | --: | --: |",
    ]
    keys = dict.fromkeys((each.model, each.form, each.tool, each.way) for each in results)
    order = list(dict.fromkeys((each.model, each.form) for each in results))
    for key in sorted(keys, key=lambda key: order.index(key[:2])):
        some = [each for each in results if (each.model, each.form, each.tool, each.way) == key]
        bits = "" if some[0].bits is None else f"{some[0].bits:.2f}"
        snr, score = (in_words([getattr(each, what) for each in some]) for what in ("snr_db", "score"))
        seconds = f"{np.mean([each.cpu_seconds for each in some]):.2f}"
        lines.append(f"| {' | '.join((*key, bits, snr, score, seconds))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what calibration_models.py built")
    parser.add_argument("--only", nargs="*", choices=MODULES, default=list(MODULES), metavar="NAME", help="a model")
    parser.add_argument("--seeds", type=int, default=3, help="how often the samples are divided")
    documents.add_options(parser)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.only:
            for seed in range(arguments.seeds):
                results += measure(name, arguments.folder, seed, Path(scratch))
    print(markdown(results))
    documents.save(arguments, {"seeds": arguments.seeds}, [asdict(each) for each in results])


if __name__ == "__main__":
    main()
