"""No call needs more memory than its output and 64 MiB, however large the weight."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import pytest

MARGIN = 64 << 20
ROWS, COLUMNS = 81_920, 1024  # 84 M weights: one byte for each is more than the margin
# Runs in a process of its own, so that a call finds no memory that another one left.
RUN = """
import sys
from pathlib import Path
import numpy as np
import corepress as cp

def status(key):
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{key}:")[1].split()[0])

def arrays(result):
    held = [result] if isinstance(result, np.ndarray) else result._arrays()
    return {value.ctypes.data: value.nbytes for value in held}

def extra(call, given):
    Path("/proc/self/clear_refs").write_text("5")
    before, known = status("VmRSS"), arrays(given)
    result = call()
    new = sum(size for place, size in arrays(result).items() if place not in known)
    return result, status("VmHWM") - before - new

rows, columns, dtype = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
first, job = (eval("lambda weight: " + text) for text in sys.argv[4:])
generator = np.random.default_rng(0)
weight = np.empty((rows, columns), dtype)
for start in range(0, rows, 64):
    weight[start : start + 64] = generator.standard_normal((64, columns), dtype=np.float32)
job(first(weight[:64])).dense()
given = first(weight)
tensor, compressing = extra(lambda: job(given), given)
if given is not weight:
    print(compressing)
    sys.exit()
dense, decompressing = extra(tensor.dense, tensor)
del dense
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
cp.error(weight, tensor)
print(compressing, decompressing, status("VmHWM") - before)
"""
BLOCKS = 'granularity="per_block", block_size=8'
GROUPS = 'granularity="per_grouped_channel", group_size=64'
JOBS = {
    "palettize": "cp.palettize(weight, nbits=4)",
    "groups": f"cp.palettize(weight, nbits=4, {GROUPS})",
    "scales": "cp.palettize(weight, nbits=4, enable_per_channel_scale=True)",
    "scaled groups": f"cp.palettize(weight, nbits=4, {GROUPS}, enable_per_channel_scale=True)",
    "quantize": "cp.quantize(weight)",
    "quantize blocks": f'cp.quantize(weight, dtype="int4", {BLOCKS})',
    "quantize floats": 'cp.quantize(weight, dtype="float8_e4m3fn")',
    "quantize to powers of two": f'cp.quantize(weight, dtype="float4_e2m1fn", scale_dtype="float8_e8m0fnu", {BLOCKS})',
    "inner scales": "cp.palettize(weight, nbits=4, enable_per_channel_scale=True, channel_axis=1)",
    "even scales": "cp.palettize(weight, nbits=4, enable_per_channel_scale=True, mode='uniform')",
    "prune": "cp.prune(weight, target_sparsity=0.5)",
    "prune n:m": "cp.prune(weight, n_m_ratio=(2, 4))",
    "prune n:m that share bytes": "cp.prune(weight, n_m_ratio=(3, 7), dim=0)",
    "prune blocks": "cp.prune(weight, target_sparsity=0.5, block_size=4)",
}

# Steps that follow others: what they are done to, and the step.
SPARSE, CODES, PALETTE = JOBS["prune"], "cp.quantize(weight)", JOBS["palettize"]
INNER_GROUPS = f"cp.palettize(weight, nbits=4, {GROUPS}, channel_axis=1)"
JOINT = [
    (SPARSE, JOBS["palettize"]),
    (SPARSE, JOBS["groups"]),
    (SPARSE, INNER_GROUPS),
    (SPARSE, JOBS["scales"]),
    (SPARSE, "cp.quantize(weight)"),
    (SPARSE, "cp.quantize(weight, granularity='per_tensor')"),
    (SPARSE, "cp.quantize(weight, channel_axis=1)"),
    (SPARSE, JOBS["quantize blocks"]),
    (SPARSE, JOBS["quantize to powers of two"]),
    (SPARSE, "cp.prune(weight, target_sparsity=0.75)"),
    (CODES, JOBS["palettize"]),
    (CODES, JOBS["groups"]),
    (CODES, JOBS["prune"]),
    (CODES, JOBS["prune n:m"]),
    (PALETTE, JOBS["prune"]),
    (f"cp.quantize({SPARSE})", JOBS["palettize"]),
]

CASES = [(job, "float16") for job in JOBS] + [("palettize", "float32"), ("groups", "float32")]


def _resets_peaks() -> bool:
    return sys.platform == "linux" and os.access("/proc/self/clear_refs", os.W_OK)


@cache
def extra_bytes(dtype: str, first: str, job: str) -> dict[str, int]:
    command = [sys.executable, "-c", RUN, str(ROWS), str(COLUMNS), dtype, first, job]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(zip(("compress", "decompress", "error"), map(int, done.stdout.split()), strict=False))


pytestmark = [
    pytest.mark.skipif(not _resets_peaks(), reason="this system does not tell the peak memory of one call"),
    pytest.mark.skipif("COREPRESS_SANITIZED" in os.environ, reason="sanitizers keep memory of their own"),
]


@pytest.mark.parametrize("call", ["compress", "decompress", "error"])
@pytest.mark.parametrize(("job", "dtype"), CASES)
def test_a_call_needs_its_output_and_64_mib(job: str, dtype: str, call: str) -> None:
    assert extra_bytes(dtype, "weight", JOBS[job])[call] <= MARGIN


@pytest.mark.parametrize(("first", "step"), JOINT)
def test_a_step_that_follows_another_needs_no_more(first: str, step: str) -> None:
    assert extra_bytes("float16", first, step)["compress"] <= MARGIN
