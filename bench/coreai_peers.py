"""coreai-opt and torchao alone and under `corepress.accelerate`: times, memory and errors of the same calls.

    python bench/coreai_peers.py [--weights 16] [--dtypes float32 float16] [--jobs "model, 4 bits" ...] [--json FILE]

A model of square linear layers of 1,048,576 weights each, in a process of its own for each job and way. ``coreai-opt``
is it as it comes, ``exact`` with ``enable_fast_kmeans_mode=False``. Jobs of programs are passes of its ``coreai_utils``
on a converted program, those of models `KMeansPalettizer` and `MagnitudePruner`. Conversion, imports and compiling
coreai-opt's solver are not counted. Seconds are the least of the repeats; memory is the peak above the start (Linux).
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import documents
import post_training
from corepress.benchmark.timing import timed

SIDE = 1024
HELPERS = Path(__file__).parents[1] / "tests" / "dropins"
WAYS = ("coreai-opt", "exact", "accelerated")
DEVIATION = 0.02
# Of programs: the pass, and its options.
PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "program, 4 bits": ("palettize", {"n_bits": 4}),
    "program, 4 bits, groups of 32": ("palettize", {"n_bits": 4, "group_size": 32}),
    "program, 4 bits, groups of 8": ("palettize", {"n_bits": 4, "group_size": 8}),
    "program, 8 bits": ("palettize", {"n_bits": 8}),
    "program, int8": ("quantize", {"dtype": "int8"}),
    "program, int4, blocks of 32": ("quantize", {"dtype": "int4", "granularity": "per_block"}),
    "program, half sparse": ("sparsify", {}),
}
# Of models: bits, and the size of groups.
MODELS = {
    "model, 4 bits": (4, 0),
    "model, 4 bits, groups of 8": (4, 8),
    "model, 4 bits, groups of 32": (4, 32),
    "model, 8 bits": (8, 0),
}
PRUNED, TABLES = "model, half pruned", "torchao, 4 bits, groups of 32 columns"
JOBS = (*PROGRAMS, *MODELS, PRUNED, TABLES)


def ways_of(job: str) -> tuple[str, ...]:
    """Only palettes of coreai-opt have an exact mode."""
    return WAYS if "bit" in job and job != TABLES else (WAYS[0], WAYS[2])


def weights_of(count: int, dtype: str) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    drawn = (generator.standard_normal((SIDE, SIDE), dtype=np.float32) * np.float32(DEVIATION) for _ in range(count))
    return [each.astype(dtype) for each in drawn]


def snr_db(found: list[np.ndarray], weights: list[np.ndarray]) -> float:
    pairs = [(one.astype(np.float64), other.astype(np.float64)) for one, other in zip(found, weights, strict=True)]
    noise = sum(float(np.square(one - other).sum()) for one, other in pairs)
    return float(10 * np.log10(sum(float(np.square(other).sum()) for _, other in pairs) / noise))


def prepared(job: str, way: str, weights: list[np.ndarray]) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """The job, and what finds the signal-to-noise ratio of its result."""
    sys.path.insert(0, str(HELPERS))
    import coreai_opt_helpers as helpers

    exact = way == "exact"
    if job in PROGRAMS:
        import coreai_opt.coreai_utils as utils

        model, x = helpers.linear_layers(weights)
        program = helpers.program_of(model, x)
        verb, options = PROGRAMS[job]
        call = of_program(utils, verb, dict(options), exact)
        return (lambda: call(program)), lambda result: snr_db(helpers.weights_of(result), weights)
    if job == TABLES:
        return of_tables(weights)
    model, x = helpers.linear_layers(weights)
    prepare = pruner() if job == PRUNED else palettizer(*MODELS[job], exact)
    return (
        lambda: prepare(copy.deepcopy(model), x),
        lambda result: snr_db([layer.weight.detach().numpy() for layer in result[::2]], weights),
    )


def of_program(utils: Any, verb: str, options: dict[str, Any], exact: bool) -> Callable[[Any], Any]:
    kinds = utils.CompressionGranularity
    if verb == "palettize":
        if "group_size" in options:
            options["granularity"] = kinds.PER_GROUPED_CHANNEL
        options |= {"enable_fast_kmeans_mode": not exact, "num_kmeans_workers": 1}
        return lambda program: utils.palettize_weights(program, None, **options)
    if verb == "quantize":
        kind = kinds(options.get("granularity", "per_channel"))
        return lambda program: utils.quantize_weights(program, utils.DType(options["dtype"]), granularity=kind)
    return utils.sparsify_weights


def palettizer(nbits: int, group_size: int, exact: bool) -> Callable[[Any, Any], Any]:
    from coreai_opt import palettization
    from coreai_opt.palettization import spec

    granularity = spec.PerGroupedChannelGranularity(axis=0, group_size=group_size) if group_size else None
    weight = palettization.PalettizationSpec(n_bits=nbits, granularity=granularity or spec.PerTensorGranularity())
    config = palettization.KMeansPalettizerConfig(
        global_config=palettization.ModuleKMeansPalettizerConfig(
            op_state_spec={"weight": weight}, enable_fast_kmeans_mode=not exact
        )
    )
    return lambda model, x: palettization.KMeansPalettizer(model, config).prepare((x,))


def pruner() -> Callable[[Any, Any], Any]:
    from coreai_opt.pruning import MagnitudePruner

    return lambda model, x: MagnitudePruner(model).prepare((x,))


def of_tables(weights: list[np.ndarray]) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """torchao's tables, and the values that it looks up in them."""
    import torch
    from torchao.prototype.quantization import codebook_coreml

    block = [-1, 32]
    tensors = [torch.from_numpy(each) for each in weights]

    def job() -> list[Any]:
        found = [
            codebook_coreml.choose_qparams_and_quantize_codebook_coreml(each, torch.uint4, block) for each in tensors
        ]
        return [codebook_coreml.dequantize_codebook(codes.int(), table, 4, block) for table, codes in found]

    return job, lambda result: snr_db([each.numpy() for each in result], weights)


def work(job: str, way: str, count: int, dtype: str) -> dict[str, float]:
    """Do a job in this process."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if way == "accelerated":
        import corepress

        corepress.accelerate.install()
    else:
        from coreai_opt.deps import _kmeans1d

        _kmeans1d.cluster([1.0, 2.0, 3.0], 2)  # compiles it
    call, quality = prepared(job, way, weights_of(count, dtype))
    cpu_seconds, peak, (seconds, result) = post_training.measured(lambda: timed(call))
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_megabytes": peak / 1e6}
    return {**found, "snr_db": quality(result)}


def measure(job: str, way: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """The least seconds of several processes."""
    count = options.weights if way != "exact" else min(options.weights, options.exact_weights)
    command = [sys.executable, __file__, "--work", job, way, dtype, "--weights", str(count)]
    best: dict[str, Any] = {}
    for _ in range(options.repeat):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(f"{job}, {way} failed:\n{run.stderr[-2000:]}")
        found = json.loads(run.stdout.splitlines()[-1])
        best = found if not best or found["cpu_seconds"] < best["cpu_seconds"] else best
        if best["seconds"] > options.long:
            break
    return {"job": job, "way": way, "dtype": dtype, "million_weights": count * SIDE * SIDE / 1e6, **best}


def print_table(results: list[dict[str, Any]]) -> None:
    table = Table("job", "dtype", "way", "M weights", "seconds", "CPU seconds", "ratio of CPU", "peak MB", "SNR dB")
    ours = {(row["job"], row["dtype"]): row for row in results if row["way"] == "accelerated"}
    for row in results:
        own = ours.get((row["job"], row["dtype"]))
        ratio = ""
        if own is not None and row is not own:
            per_weight = row["cpu_seconds"] / row["million_weights"]
            ratio = f"{per_weight / (own['cpu_seconds'] / own['million_weights']):.1f}x"
        numbers = [f"{row[key]:.2f}" for key in ("million_weights", "seconds", "cpu_seconds")]
        table.add_row(
            row["job"],
            row["dtype"],
            row["way"],
            *numbers,
            ratio,
            f"{row['peak_megabytes']:.0f}",
            f"{row['snr_db']:.3f}",
        )
    Console(width=150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=16, help="layers of a million weights")
    parser.add_argument("--exact-weights", type=int, default=1, help="the same, for coreai-opt's exact mode")
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "float16"], default=["float32", "float16"])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--long", type=float, default=20.0, help="seconds from which a job is not repeated")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    documents.add_options(parser)
    options = parser.parse_args()
    if options.work:
        job, way, dtype = options.work
        print(json.dumps(work(job, way, options.weights, dtype)))
        return
    settings = {key: getattr(options, key) for key in ("weights", "exact_weights", "repeat", "long")}
    settings["omp_num_threads"] = os.environ.get("OMP_NUM_THREADS")
    results = []
    for job in options.jobs:
        for dtype in options.dtypes:
            for way in ways_of(job):
                results.append(measure(job, way, dtype, options))
                row = results[-1]
                print(f"{job}, {dtype}, {way}: {row['seconds']:.2f} s, {row['snr_db']:.2f} dB", flush=True)
                documents.save(options, settings, results)  # the rest may take hours
    print_table(results)


if __name__ == "__main__":
    main()
