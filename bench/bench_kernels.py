"""Each kernel in weights per second, beside a copy of the same array. Every answer is checked before it is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import corepress as cp
from weights import SHAPES, draw

WEIGHTS = {dtype: draw(SHAPES["convolution"], dtype) for dtype in ("float16", "float32")}
GROUPS = {"granularity": "per_grouped_channel", "group_size": 16}
INT4_BLOCKS = {"dtype": "int4", "granularity": "per_block", "block_size": 32}

# Signal-to-noise ratios, in decibel, that a correct result on these weights cannot miss.
JOBS: dict[str, tuple[Callable[..., cp.CompressedTensor], float]] = {
    **{
        f"palettize-{nbits}-bits": (lambda w, n=nbits, **k: cp.palettize(w, nbits=n, **k), snr)
        for nbits, snr in ((1, 3), (2, 7), (3, 12), (4, 17), (6, 29), (8, 40))
    },
    "palettize-4-bits-groups-of-16": (lambda w, **k: cp.palettize(w, nbits=4, **GROUPS, **k), 17),
    "palettize-8-bits-groups-of-16": (lambda w, **k: cp.palettize(w, nbits=8, **GROUPS, **k), 40),
    "quantize-int8-per-channel": (lambda w, **k: cp.quantize(w, **k), 30),
    "quantize-int8-per-channel-linear": (lambda w, **k: cp.quantize(w, mode="linear", **k), 30),
    "quantize-int8-last-axis": (lambda w, **k: cp.quantize(w, channel_axis=-1, **k), 20),
    "quantize-int4-blocks-of-32": (lambda w, **k: cp.quantize(w, **INT4_BLOCKS, **k), 15),
    "quantize-int4-blocks-of-32-searched": (
        lambda w, **k: cp.quantize(w, scale_search="mse", **INT4_BLOCKS, **k),
        17,
    ),
    "prune-half": (lambda w, **k: cp.prune(w, target_sparsity=0.5, **k), 10),
    "prune-2-of-4": (lambda w, **k: cp.prune(w, n_m_ratio=(2, 4), **k), 6),
    "prune-blocks": (lambda w, **k: cp.prune(w, target_sparsity=0.5, block_size=4, **k), 3),
}


def _record(benchmark: Any, weight: np.ndarray) -> None:
    """Add the rates to what is saved; nothing to do where only the answers are checked."""
    if benchmark.stats is not None:
        benchmark.extra_info["million_weights_per_second"] = round(weight.size / benchmark.stats.stats.min / 1e6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("job", JOBS)
def bench_compress(benchmark: Any, job: str, dtype: str, threads: int | None) -> None:
    weight, (compress, least_snr) = WEIGHTS[dtype], JOBS[job]
    assert cp.error(weight, compress(weight)).snr_db > least_snr
    benchmark.group = f"compress {dtype}"
    benchmark(compress, weight, num_threads=threads)
    _record(benchmark, weight)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("job", JOBS)
def bench_dense(benchmark: Any, job: str, dtype: str, threads: int | None) -> None:
    weight = WEIGHTS[dtype]
    tensor = JOBS[job][0](weight)
    out = np.empty_like(weight)
    assert np.array_equal(tensor.dense(out), tensor.dense(num_threads=1))
    benchmark.group = f"dense {dtype}"
    benchmark(tensor.dense, out, num_threads=threads)
    _record(benchmark, weight)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("group", ["compress", "dense"])
def bench_copy(benchmark: Any, dtype: str, group: str) -> None:
    weight = WEIGHTS[dtype]
    out = np.empty_like(weight)
    benchmark.group = f"{group} {dtype}"
    benchmark(np.copyto, out, weight)
    _record(benchmark, weight)


@pytest.mark.parametrize("nbits", [1, 2, 3, 4, 6, 8])
def bench_pack(benchmark: Any, nbits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**nbits, WEIGHTS["float16"].size).astype(np.uint8)
    packed = cp.kernels.pack_bits(codes, nbits)
    assert np.array_equal(cp.kernels.unpack_bits(packed, nbits, codes.size), codes)
    benchmark.group = "pack"
    benchmark(cp.kernels.pack_bits, codes, nbits, packed)
    _record(benchmark, codes)


def bench_error(benchmark: Any, threads: int | None) -> None:
    weight = WEIGHTS["float16"]
    other = weight[::-1].copy()
    exact = np.square(weight.astype(np.float64) - other).sum()
    assert cp.error(weight, other).sse == pytest.approx(exact, rel=1e-12)
    benchmark.group = "error"
    benchmark(cp.error, weight, other, num_threads=threads)
    _record(benchmark, weight)
