"""Writes tests/golden/kernels.json: what the kernels give for a handful of weights.

Run it only after a change that is meant to change results; read the difference, and say in the commit why it is right.
The weights are made with integers alone, so that no library's random numbers or mathematics decide about them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import corepress as cp

BFLOAT16 = ml_dtypes.bfloat16
FILE = Path(__file__).parent / "golden" / "kernels.json"


def bell(*shape: int, dtype: Any = np.float16, seed: int = 1) -> np.ndarray:
    """Sums of twelve uniform integers, exactly representable in half."""
    state = np.uint64(seed) + np.arange(12 * int(np.prod(shape)), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    sums = (state >> np.uint64(57)).astype(np.int64).reshape(*shape, 12).sum(axis=-1) - 762
    return (sums / 1024).astype(dtype)


def spread(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Numbers of many magnitudes and both signs."""
    base = bell(*shape, dtype=np.float64)
    return (base * base * base).astype(dtype)


def moments(columns: int) -> np.ndarray:
    """Second moments of inputs that are alike if they are neighbours; whole numbers, so exact."""
    drawn = (bell(2 * columns, columns + 2, dtype=np.float64, seed=5) * 1024).astype(np.int64)
    inputs = drawn[:, :-2] + 2 * drawn[:, 1:-1] + drawn[:, 2:]
    return (inputs.T @ inputs).astype(np.float64)


GROUPED = {"granularity": "per_grouped_channel", "group_size": 4}
CASES: dict[str, Callable[[], cp.CompressedTensor]] = {
    "palettize 1 bit float16": lambda: cp.palettize(bell(30, 17), nbits=1),
    "palettize 3 bits float16": lambda: cp.palettize(bell(30, 17), nbits=3),
    "palettize 4 bits float16 histogram": lambda: cp.palettize(spread(100, 300, dtype=np.float16), nbits=4),
    "palettize 4 bits float32 sorted": lambda: cp.palettize(spread(50, 99), nbits=4),
    "palettize 4 bits float32 buckets": lambda: cp.palettize(spread(200, 301), nbits=4),
    "palettize 8 bits float32 buckets": lambda: cp.palettize(spread(200, 301), nbits=8),
    "palettize 2 bits groups of axis 0": lambda: cp.palettize(bell(12, 5, 3), nbits=2, **GROUPED),
    "palettize 6 bits groups of last axis": lambda: cp.palettize(spread(70, 8), nbits=6, channel_axis=1, **GROUPED),
    "palettize 4 bits even steps float16": lambda: cp.palettize(
        spread(30, 17, dtype=np.float16), nbits=4, mode="uniform"
    ),
    "palettize 8 bits even steps of subnormal width": lambda: cp.palettize(
        (bell(30, 17) * np.float16(2**-9)), nbits=8, mode="uniform"
    ),
    "palettize 3 bits even steps of integers": lambda: cp.palettize(cp.quantize(bell(9, 41)), nbits=3, mode="uniform"),
    "palettize lossless": lambda: cp.palettize(np.array([3, -1, 0, 3, -0.0], np.float32), nbits=3),
    "palettize pairs 4 bits float16": lambda: cp.palettize(spread(100, 300, dtype=np.float16), nbits=4, cluster_dim=2),
    "palettize fours 3 bits float32 groups": lambda: cp.palettize(bell(16, 9, 3), nbits=3, cluster_dim=4, **GROUPED),
    "palettize pairs 2 bits last axis importance": lambda: cp.palettize(
        spread(70, 8), nbits=2, cluster_dim=2, channel_axis=1, importance=np.abs(spread(70, 8))
    ),
    "quantize int8 per channel": lambda: cp.quantize(bell(9, 41)),
    "quantize int8 linear per tensor": lambda: cp.quantize(bell(9, 41), mode="linear", granularity="per_tensor"),
    "quantize uint8 symmetric last axis": lambda: cp.quantize(spread(64, 7), dtype="uint8", channel_axis=1),
    "quantize uint8 linear float32": lambda: cp.quantize(spread(9, 41), dtype="uint8", mode="linear"),
    "quantize whole range of half": lambda: cp.quantize(np.array([[65504, -65504, 1]], np.float16), mode="linear"),
    "quantize int4 blocks of 32": lambda: cp.quantize(bell(9, 96), dtype="int4", granularity="per_block"),
    "quantize uint4 linear blocks of axis 0": lambda: cp.quantize(
        spread(64, 7), dtype="uint4", mode="linear", granularity="per_block", channel_axis=1
    ),
    "quantize int4 linear grid": lambda: cp.quantize(
        bell(6, 8, 3), dtype="int4", mode="linear", granularity="per_block", block_size=(2, 4, 0)
    ),
    "quantize int4 searched scales": lambda: cp.quantize(
        bell(9, 96), dtype="int4", granularity="per_block", scale_search="mse"
    ),
    "quantize uint4 linear searched scales": lambda: cp.quantize(
        spread(9, 41), dtype="uint4", mode="linear", scale_search="mse"
    ),
    "palettize 3 bits bfloat16": lambda: cp.palettize(bell(30, 17, dtype=BFLOAT16), nbits=3),
    "palettize 4 bits bfloat16 histogram": lambda: cp.palettize(spread(100, 300, dtype=BFLOAT16), nbits=4),
    "palettize 3 bits by importance float16": lambda: cp.palettize(
        bell(90, 170), nbits=3, importance=np.abs(spread(90, 170))
    ),
    "palettize 4 bits by importance float32 buckets": lambda: cp.palettize(
        spread(200, 301), nbits=4, importance=np.abs(bell(200, 301, seed=2))
    ),
    "palettize 3 bits with infinities": lambda: cp.palettize(
        np.append(spread(30, 17), np.float32([np.inf, -np.inf])), nbits=3, nonfinite="table"
    ),
    "quantize int8 bfloat16": lambda: cp.quantize(spread(9, 41, dtype=BFLOAT16)),
    "quantize int4 searched scales by importance": lambda: cp.quantize(
        bell(9, 96), dtype="int4", scale_search="mse", importance=np.abs(spread(9, 96))
    ),
    "quantize uint2 linear float16": lambda: cp.quantize(bell(9, 41), dtype="uint2", mode="linear"),
    "quantize float8_e4m3fn float16": lambda: cp.quantize(bell(9, 41), dtype="float8_e4m3fn"),
    "quantize float8_e5m2 searched scales float32": lambda: cp.quantize(
        spread(9, 41), dtype="float8_e5m2", scale_search="mse"
    ),
    "quantize float4_e2m1fn blocks of 32, powers of two, bfloat16": lambda: cp.quantize(
        bell(9, 96, dtype=BFLOAT16), dtype="float4_e2m1fn", granularity="per_block", scale_dtype="float8_e8m0fnu"
    ),
    "quantize int8 powers of two searched": lambda: cp.quantize(
        spread(9, 41), scale_dtype="float8_e8m0fnu", scale_search="mse"
    ),
    "quantize float8_e4m3fn by outputs": lambda: cp.quantize(bell(50, 67), dtype="float8_e4m3fn", hessian=moments(67)),
    "prune half bfloat16": lambda: cp.prune(spread(50, 21, dtype=BFLOAT16), target_sparsity=0.5),
    "prune half float16": lambda: cp.prune(bell(50, 21), target_sparsity=0.5),
    "prune three quarters float32": lambda: cp.prune(spread(50, 21), target_sparsity=0.75),
    "prune threshold": lambda: cp.prune(bell(50, 21), threshold=0.1),
    "prune 2 of 4 float16": lambda: cp.prune(bell(50, 21), n_m_ratio=(2, 4)),
    "prune 3 of 8 axis 0 float32": lambda: cp.prune(spread(50, 7, 3), n_m_ratio=(3, 8), dim=0),
    "prune blocks float16": lambda: cp.prune(bell(50, 21), target_sparsity=0.5, block_size=4),
    "prune blocks last axis float32": lambda: cp.prune(spread(50, 21), target_sparsity=0.7, block_size=8, dim=1),
    "palettize 4 bits by outputs float16": lambda: cp.palettize(bell(50, 67), nbits=4, hessian=moments(67)),
    "palettize 2 bits by outputs float32 groups": lambda: cp.palettize(
        bell(20, 67, dtype=np.float32), nbits=2, hessian=moments(67), **GROUPED
    ),
    "palettize 8 bits by outputs bfloat16": lambda: cp.palettize(
        spread(50, 67, dtype=BFLOAT16), nbits=8, hessian=moments(67), dampening=0.1
    ),
    "palettize pairs by outputs": lambda: cp.palettize(bell(50, 67), nbits=4, cluster_dim=2, hessian=moments(67)),
    "quantize int4 blocks by outputs": lambda: cp.quantize(
        bell(50, 96), dtype="int4", granularity="per_block", scale_search="mse", hessian=moments(96)
    ),
    "prune half by outputs": lambda: cp.prune(bell(50, 67), target_sparsity=0.5, hessian=moments(67)),
    "prune 2 of 4 by outputs": lambda: cp.prune(bell(50, 67), n_m_ratio=(2, 4), hessian=moments(67)),
    "prune and palettize by outputs": lambda: cp.palettize(
        cp.prune(bell(50, 67), target_sparsity=0.5, hessian=moments(67)), nbits=3, hessian=moments(67)
    ),
}


def describe(name: str) -> dict[str, Any]:
    """What is recorded of a case: small facts to read, and hashes of every array and of the decompressed weights."""
    tensor = CASES[name]()
    facts: dict[str, Any] = {"repr": repr(tensor)}
    parts = {key: value for key, value in vars(tensor).items() if isinstance(value, np.ndarray)}
    for key, value in {**parts, "dense": tensor.dense()}.items():
        little = np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"))
        digest = hashlib.sha256(little.tobytes()).hexdigest()[:32]
        facts[key] = f"{value.dtype} {value.shape} starts {little.tobytes()[:12].hex(' ')} sha256 {digest}"
    return facts


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps({name: describe(name) for name in CASES}, indent=1) + "\n")
