"""Compression of PyTorch models without training, and masks, beside coremltools in one process.

    python bench/post_training.py [--weights 262144] [--repeats 3] [--json FILE]

Seconds are those of the CPU, on one thread; memory is the peak above the start of a job, in bytes a weight (Linux); of
both, the least of the repeats, since the first one loads libraries. Errors are sums of squares, weighted by the
sensitivities where there are some, as multiples of coremltools'.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from rich.console import Console
from rich.table import Table

import documents

Job = Callable[[Any], Callable[[], Any]]
STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(field: str) -> int:
    """Bytes of memory of this process: now (``VmRSS``) or at its peak (``VmHWM``); 0 where this is not known."""
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measured(job: Callable[[], Any]) -> tuple[float, int, Any]:
    """Seconds of the CPU, peak memory above the start, the result."""
    gc.collect()
    if PEAK.exists():
        ctypes.CDLL(None).malloc_trim(0)  # memory that was used before is not there to be used again
        PEAK.write_text("5", encoding="ascii")  # the peak is counted anew
    start = resident("VmRSS")
    begin = time.process_time()
    result = job()
    seconds = time.process_time() - begin
    return seconds, max(resident("VmHWM") - start, 0), result


class Layers:
    """One linear layer, its sensitivities, and samples for it."""

    def __init__(self, weights: int, folder: str) -> None:
        rows = 1 << (weights.bit_length() // 2)
        generator = torch.Generator().manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(weights // rows, rows, bias=False))
        with torch.no_grad():
            self.model[0].weight.copy_(0.05 * torch.randn(rows, weights // rows, generator=generator))
        self.sensitivity = torch.rand(self.weight.shape, generator=generator).pow(8).clamp_min(1e-12)
        self.path = str(Path(folder, "sensitivity.pt"))
        torch.save({"0.weight": self.sensitivity}, self.path)
        width = self.weight.shape[1]
        self.batches = [torch.randn(32, width, generator=generator) for _ in range(4)]

    @property
    def weight(self) -> torch.Tensor:
        return self.model[0].weight.detach()

    def palettize(self, **options: Any) -> Job:
        """By `PostTrainingPalettizer`."""

        def job(package: Any) -> Callable[[], Any]:
            module = package("palettization")
            config = module.PostTrainingPalettizerConfig.from_dict({"global_config": options})
            return lambda: module.PostTrainingPalettizer(self.model, config).compress()[0].weight.detach()

        return job

    def palettize_sensitive(self, **options: Any) -> Job:
        """By `SKMPalettizer`, with given sensitivities."""

        def job(package: Any) -> Callable[[], Any]:
            module = package("palettization")
            config = module.SKMPalettizerConfig.from_dict({"global_config": options})
            palettizer = module.SKMPalettizer(self.model, config)
            return lambda: palettizer.compress(sensitivity_path=self.path)[0].weight.detach()

        return job

    def sensitivities(self, package: Any) -> Callable[[], Any]:
        """Of 128 samples; for coremltools they are batches of one."""
        module = package("palettization")
        palettizer = module.SKMPalettizer(copy.deepcopy(self.model))
        ours = module.__name__.startswith("corepress")
        data = self.batches if ours else [sample for batch in self.batches for sample in batch.split(1)]
        return lambda: palettizer.compute_sensitivity(data, lambda model, x: model(x).square().sum(1).mean())[
            "0.weight"
        ]

    def quantize(self, **options: Any) -> Job:
        """By `PostTrainingQuantizer`."""

        def job(package: Any) -> Callable[[], Any]:
            module = package("quantization")
            config = module.PostTrainingQuantizerConfig.from_dict({"global_config": options})
            return lambda: module.PostTrainingQuantizer(self.model, config).compress()[0].weight.detach()

        return job

    def mask(self, **options: Any) -> Job:
        """A step of `MagnitudePruner` that finds a new mask."""

        def job(package: Any) -> Callable[[], Any]:
            module = package("pruning")
            config = module.MagnitudePrunerConfig.from_dict({"global_config": options})
            pruner = module.MagnitudePruner(self.model, config)
            prepared = pruner.prepare()

            def step() -> torch.Tensor:
                pruner.step()
                mask: torch.Tensor = prepared[0].weight_mask
                return mask * self.weight

            return step

        return job


def jobs(layers: Layers) -> Iterator[tuple[str, Job, str]]:
    """Names, jobs, and what errors are weighted by."""
    for n_bits in (4, 2):
        yield f"SKM, {n_bits} bits", layers.palettize_sensitive(n_bits=n_bits), "sensitivity"
    groups = {"granularity": "per_grouped_channel", "group_size": 16}
    yield "SKM, 4 bits, groups of 16 rows", layers.palettize_sensitive(n_bits=4, **groups), "sensitivity"
    for n_bits in (4, 2):
        exact = layers.palettize(n_bits=n_bits, enable_fast_kmeans_mode=False)
        yield f"palettes, {n_bits} bits, exact", exact, "one"
    yield "palettes, 4 bits, coremltools rounds", layers.palettize(n_bits=4), "one"
    yield (
        "palettes, 4 bits, groups of 16 rows, exact",
        layers.palettize(n_bits=4, enable_fast_kmeans_mode=False, **groups),
        "one",
    )
    yield "sensitivities of 128 samples", layers.sensitivities, ""
    yield "int4 in blocks of 32", layers.quantize(weight_dtype="int4", granularity="per_block", block_size=32), "one"
    yield "mask, 75 % zeros", layers.mask(target_sparsity=0.75), "one"
    yield "mask, 3 of 4", layers.mask(n_m_ratio=[3, 4]), "one"


def package_of(name: str) -> Any:
    """The function that imports parts of coremltools or of what replaces it."""
    import importlib

    return lambda part: importlib.import_module(f"{name}.optimize.torch.{part}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=int, default=1 << 18)
    parser.add_argument("--repeats", type=int, default=3)
    documents.add_options(parser)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    packages = {name: package_of(name) for name in ("corepress", "coremltools")}
    for package in packages.values():
        for part in ("palettization", "pruning", "quantization"):
            package(part)
    table = Table("job", "coremltools, s", "corepress, s", "faster", "coremltools, B/weight", "B/weight", "error")
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        layers = Layers(options.weights, folder)
        for name, job, errors in jobs(layers):
            row: dict[str, Any] = {"job": name}
            for label, package in packages.items():
                runs = [measured(job(package)) for _ in range(options.repeats)]
                weights = layers.sensitivity if errors == "sensitivity" else 1
                row[label] = {
                    "seconds": min(seconds for seconds, _, _ in runs),
                    "bytes_per_weight": min(peak for _, peak, _ in runs) / layers.weight.numel(),
                    "error": float((weights * (runs[0][2] - layers.weight).double().square()).sum()) if errors else 0,
                }
            figures.append(row)
            theirs, ours = row["coremltools"], row["corepress"]
            table.add_row(
                name,
                f"{theirs['seconds']:.4f}",
                f"{ours['seconds']:.4f}",
                f"{theirs['seconds'] / ours['seconds']:.1f}",
                f"{theirs['bytes_per_weight']:.1f}",
                f"{ours['bytes_per_weight']:.1f}",
                f"{ours['error'] / theirs['error']:.5f}" if errors else "",
            )
    Console(width=140).print(table)
    documents.save(options, {"weights": options.weights, "repeats": options.repeats}, figures)


if __name__ == "__main__":
    main()
