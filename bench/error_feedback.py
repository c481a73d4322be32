"""Error feedback compared with a plain GPTQ in PyTorch, which rounds to the same palette: CPU seconds and error.

    python bench/error_feedback.py [--quick] [--json FILE]

PyTorch's GPTQ is Frantar's: Cholesky, inverse and Cholesky in float32, groups of 128 columns whose errors reach the
columns behind them by one product, columns by falling diagonal. Ours is measured as it is called, with the palette,
the sweep and the packing, and alone, without the sweep. The error is that of the outputs, relative to the nearest
entries', on the moments that both have seen. `product` is the rate of the loop: rows x columns x block multiplications
and additions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import corepress as cp
import documents
from corepress import _core
from corepress.compression import output_error

LAYERS = ((384, 384, 384), (1536, 384, 384), (384, 1536, 1536), (1280, 1152, 1152), (1280, 11520, 1152))
NBITS = 4
PANEL = 128


def moments(columns: int, size: int) -> NDArray[np.float32]:
    """Second moments of inputs that depend on each other, block by block."""
    rng = np.random.default_rng(columns)
    blocks = []
    for _ in range(-(-columns // size)):
        inputs = rng.standard_normal((2 * size, size // 4)) @ rng.standard_normal((size // 4, size))
        inputs += rng.standard_normal(inputs.shape)
        blocks.append((inputs.T @ inputs / len(inputs)).astype(np.float32))
    return np.array(blocks)


def torch_gptq(weight: NDArray[Any], hessian: NDArray[np.float32], table: NDArray[Any], dampening: float) -> Any:
    """GPTQ as its authors' code does it, against a palette; the codes."""
    import torch

    entries = torch.tensor(table.astype(np.float32))
    middles = (entries[1:] + entries[:-1]) / 2
    codes = torch.empty(weight.shape, dtype=torch.uint8)
    size = hessian.shape[1]
    with torch.no_grad():
        for block, begin in enumerate(range(0, weight.shape[1], size)):
            w = torch.tensor(weight[:, begin : begin + size].astype(np.float32))
            count = w.shape[1]
            h = torch.tensor(hessian[block][:count, :count])
            order = torch.argsort(h.diagonal(), descending=True)
            w, h = w[:, order], h[order][:, order]
            h.diagonal().add_(dampening * h.diagonal().mean())
            factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
            of_block = torch.empty(w.shape, dtype=torch.uint8)
            for first in range(0, count, PANEL):
                last = min(first + PANEL, count)
                part, errors = w[:, first:last].clone(), torch.empty(len(w), last - first)
                own = factor[first:last, first:last]
                for j in range(last - first):
                    column = part[:, j]
                    code = torch.bucketize(column.contiguous(), middles)
                    error = (column - entries[code]) / own[j, j]
                    part[:, j:] -= error[:, None] * own[j, None, j:]
                    errors[:, j], of_block[:, first + j] = error, code.to(torch.uint8)
                w[:, last:] -= errors @ factor[first:last, last:]
            codes[:, begin + order] = of_block
    return codes.numpy()


def seconds(job: Callable[[], Any], turns: int) -> float:
    """The least CPU time of several runs."""
    best = float("inf")
    for _ in range(turns):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


def measure(rows: int, columns: int, size: int, turns: int) -> dict[str, Any]:
    """One layer."""
    import torch

    torch.set_num_threads(1)
    weight = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float16)
    hessian = moments(columns, size)
    nearest = cp.palettize(weight, nbits=NBITS, num_threads=1)
    table = nearest.lut.ravel()
    fed = cp.palettize(weight, nbits=NBITS, hessian=hessian, num_threads=1)
    theirs = table[torch_gptq(weight, hessian, table, 0.01)]
    matrices, tables = weight[None], table.astype(np.float64).reshape(1, -1, 1)
    codes, numbers = np.zeros(matrices.shape, np.uint8), np.zeros((1, rows), np.int32)

    def feed(sweeps: int) -> Any:
        return _core.feed_back_codes(
            matrices, hessian[None], 0.01, tables, numbers, None, None, codes, sweeps, False, 1
        )

    factors = seconds(lambda: _core.column_pivots((1, rows, columns), hessian[None], 0.01, 1), turns)
    alone = seconds(lambda: feed(0), turns)
    unfed = output_error(weight, nearest, hessian)
    return {
        "layer": f"{rows}x{columns}" + (f", blocks of {size}" if size < columns else ""),
        "seconds": seconds(lambda: cp.palettize(weight, nbits=NBITS, hessian=hessian, num_threads=1), turns),
        "seconds_without_sweep": alone,
        "torch_seconds": seconds(lambda: torch_gptq(weight, hessian, table, 0.01), turns),
        "loop_gigaflops": rows * columns * size / max(alone - factors, 1e-9) / 1e9,
        "gain_db": 10 * np.log10(unfed / output_error(weight, fed, hessian)),
        "torch_gain_db": 10 * np.log10(unfed / output_error(weight, theirs, hessian)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of the three smaller layers")
    documents.add_options(parser)
    options = parser.parse_args()
    layers = LAYERS[:3] if options.quick else LAYERS
    lines = [measure(*layer, 1 if options.quick else 3) for layer in layers]
    table = Table("layer", "ours", "without sweep", "torch", "product", "gain", "torch's gain")
    for line in lines:
        table.add_row(
            line["layer"],
            f"{line['seconds']:.3f} s",
            f"{line['seconds_without_sweep']:.3f} s",
            f"{line['torch_seconds']:.3f} s",
            f"{line['loop_gigaflops']:.0f} GFLOP/s",
            f"{line['gain_db']:.1f} dB",
            f"{line['torch_gain_db']:.1f} dB",
        )
    Console().print(table)
    documents.save(options, {"nbits": NBITS}, lines)


if __name__ == "__main__":
    main()
