"""Squared error at equal bits: int4 in blocks of 32 by range and searched, beside MLX and ggml's Q4_0.

    python bench/quality.py [--json FILE]

The error is that of the decompressed weights, over that of scales by range; bits per weight include scales and zero
points. All scales are float16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import corepress as cp
import documents
import peers
from corepress.benchmark import coremltools_jobs

Array = NDArray[Any]
SHAPE = (1024, 1024)
DRAWS: dict[str, Callable[[np.random.Generator], Array]] = {
    "Gaussian": lambda generator: generator.standard_normal(SHAPE),
    "t(6)": lambda generator: generator.standard_t(6, SHAPE),
}
BLOCKS = {"granularity": "per_block", "block_size": 32}


def ours(weight: Array, **options: Any) -> tuple[Array, float]:
    tensor = cp.quantize(weight, **BLOCKS, **options)
    return tensor.dense(), tensor.bits_per_weight


def grouped(weight: Array, nbits: int) -> tuple[Array, float]:
    tensor = cp.palettize(weight, nbits=nbits, granularity="per_grouped_channel", group_size=1)
    return tensor.dense(), tensor.bits_per_weight


def of_coremltools(weight: Array) -> tuple[Array, float]:
    return coremltools_jobs.quantized_decoded(coremltools_jobs.quantize(weight, 4, 32)()), 4.5


def of_mlx(weight: Array) -> tuple[Array, float]:
    return peers.mlx_decoded(peers.mlx_quantize(weight)()), 5.0


def of_gguf(weight: Array) -> tuple[Array, float]:
    return peers.gguf_decoded(peers.gguf_quantize(weight)()), 4.5


def of_ggml(weight: Array) -> tuple[Array, float]:
    return peers.gguf_decoded(peers.ggml_quantize(weight)()), 4.5


# name: (the tools it needs, how)
FORMS: dict[str, tuple[tuple[str, ...], Callable[[Array], tuple[Array, float]]]] = {
    "int4, range": ((), lambda weight: ours(weight, dtype="int4")),
    "int4, searched": ((), lambda weight: ours(weight, dtype="int4", scale_search="mse")),
    "coremltools int4": (("coremltools",), of_coremltools),
    "gguf Q4_0": (("gguf",), of_gguf),
    "ggml Q4_0": (("ggml", "gguf"), of_ggml),
    "uint4 linear, range": ((), lambda weight: ours(weight, dtype="uint4", mode="linear")),
    "uint4 linear, searched": ((), lambda weight: ours(weight, dtype="uint4", mode="linear", scale_search="mse")),
    "MLX 4 bits, groups of 32": (("MLX",), of_mlx),
    "4-bit table per row": ((), lambda weight: grouped(weight, 4)),
}


def measure(draw: str) -> list[dict[str, Any]]:
    """One record per form: bits per weight and relative squared error."""
    weight = (DRAWS[draw](np.random.default_rng(0)) * 0.02).astype(np.float16)
    exact, lines = weight.astype(np.float64), []
    for form, (tools, compress) in FORMS.items():
        if any(peers.missing(tool) for tool in tools):
            continue
        dense, bits = compress(weight)
        sse = float(np.square(exact - np.asarray(dense, np.float64).reshape(SHAPE)).sum())
        lines.append({"weights": draw, "form": form, "bits_per_weight": bits, "squared_error": sse})
    for line in lines:
        line["over_range"] = line["squared_error"] / lines[0]["squared_error"]
        line["snr_db"] = 10 * np.log10(np.square(exact).sum() / line["squared_error"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    documents.add_options(parser)
    options = parser.parse_args()
    lines = [line for draw in DRAWS for line in measure(draw)]
    table = Table(title=f"{SHAPE[0]} x {SHAPE[1]} float16")
    for heading in ("weights", "form", "bits/weight", "error / int4 by range", "SNR dB"):
        table.add_column(heading, justify="left" if heading in ("weights", "form") else "right")
    for line in lines:
        numbers = f"{line['bits_per_weight']:.3f}", f"{line['over_range']:.4f}", f"{line['snr_db']:.2f}"
        table.add_row(line["weights"], line["form"], *numbers)
    Console(width=100).print(table)
    documents.save(options, {"shape": SHAPE}, lines)


if __name__ == "__main__":
    main()
