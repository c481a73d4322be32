"""GPTQ and SparseGPT of one layer beside coremltools', in one process: CPU seconds, memory, error of the outputs.

    python bench/layerwise.py [--size 1024] [--rows 1024] [--repeats 3]

Both compress the same Linear layer with the same inputs, on one thread, by `LayerwiseCompressor`. Seconds are the least
of the repeats, of the CPU, with the runs of the model. Memory is what the peak of the process rises by in a run, the
least of the repeats. Errors are relative to the outputs without bias. Needs coremltools and torch.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from corepress.benchmark.memory import PeakMeter

CASES: dict[str, dict[str, Any]] = {
    "GPTQ uint4": {"algorithm": "gptq", "weight_dtype": "uint4"},
    "GPTQ uint4, blocks of 32": {
        "algorithm": "gptq",
        "weight_dtype": "uint4",
        "granularity": "per_block",
        "block_size": 32,
    },
    "SparseGPT 50 %": {"algorithm": "sparse_gpt", "weight_dtype": "float32"},
    "SparseGPT 2 of 4": {"algorithm": "sparse_gpt", "weight_dtype": "float32", "n_m_ratio": [2, 4]},
}


def measured(library: Any, model: torch.nn.Module, inputs: torch.Tensor, case: dict[str, Any], repeats: int) -> Any:
    """CPU seconds, bytes at the peak, relative error of the outputs."""
    seconds, memory = [], []
    meter = PeakMeter()
    for _ in range(repeats):
        config = library.LayerwiseCompressorConfig.from_dict({"global_config": case})
        compressor = library.LayerwiseCompressor(model, config)
        begin = time.process_time()
        compressed, added = meter.call(lambda: compressor.compress([inputs], device="cpu"))  # noqa: B023
        seconds.append(time.process_time() - begin)
        memory.append(added)
    with torch.no_grad():
        outputs = model(inputs)
        error = float((compressed(inputs) - outputs).norm() / outputs.norm())
    return min(seconds), min(memory), error


def main() -> None:
    """Print a row for each case and library."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    from coremltools.optimize.torch import layerwise_compression as theirs

    from corepress.optimize.torch import layerwise_compression as ours

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(arguments.size, arguments.size, bias=False))
    table = Table("case", "library", "CPU s", "MB", "output error", title=f"Linear {arguments.size} x {arguments.size}")
    independent = torch.randn(arguments.rows, arguments.size)
    mixed = torch.randn(arguments.rows, arguments.size // 4) @ torch.randn(arguments.size // 4, arguments.size)
    for kind, inputs in (("independent", independent), ("dependent", mixed / mixed.std() + 0.3 * independent)):
        for name, case in CASES.items():
            for library, label in ((ours, "corepress"), (theirs, "coremltools")):
                seconds, memory, error = measured(library, model, inputs, case, arguments.repeats)
                row = f"{seconds:.2f}", f"{memory / 1e6:.0f}", f"{error:.2%}"
                table.add_row(f"{name}, {kind} inputs", label, *row)
    Console().print(table)


if __name__ == "__main__":
    main()
