"""Arrays that another thread rewrites during a call: a result or an error, never a signal, never a call without end.

As a script it takes longer: python tests/kernels/test_changing_arrays.py RUNS [SEED]
"""

from __future__ import annotations

import collections
import faulthandler
import gc
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import corepress as cp
from corepress import kernels

RUNS = 60
LONGEST = 240  # seconds of one call, on a busy machine with sanitizers


def patterns_of(array: np.ndarray) -> list[np.ndarray]:
    """What an array changes between, each at odds with the others."""
    count = array.size
    if array.dtype == np.uint8:
        drawn = np.random.default_rng(0).integers(0, 256, count, np.uint8)
        return [np.zeros(count, np.uint8), np.full(count, 255, np.uint8), drawn]
    rising = np.linspace(-1, 1, count).astype(array.dtype)
    nans = np.full(count, -np.nan, array.dtype)
    nans[::3] = np.inf
    drawn = np.random.default_rng(0).standard_t(2, count).astype(array.dtype)
    ones = np.ones(count, array.dtype)
    return [ones, 2 * ones, rising, rising[::-1].copy(), drawn, abs(drawn), nans]


def rewrite(arrays: list[np.ndarray], seed: int, stop: threading.Event) -> None:
    """Rewrite all or parts of the arrays, from a random moment on."""
    draw = random.Random(seed)
    patterns = [patterns_of(array) for array in arrays]
    time.sleep(draw.choice([0, 0.001, 0.01, 0.05]))
    while not stop.is_set():
        for array, choice in zip(arrays, patterns, strict=True):
            begin = draw.choice([0, 0, draw.randrange(array.size)])
            array.reshape(-1)[begin:] = draw.choice(choice)[begin:]


def compressed_calls(weight: np.ndarray) -> list[tuple[Callable[[], Any], list[np.ndarray]]]:
    """Decoding and measuring compressed tensors, and the arrays these consist of."""
    palette = cp.palettize(weight, nbits=4, granularity="per_grouped_channel", group_size=64)
    quantized = cp.quantize(weight, dtype="uint4", mode="linear", granularity="per_block", block_size=32)
    sparse = cp.prune(weight, target_sparsity=0.5)
    joint = cp.palettize(sparse, nbits=4)
    table = replace(palette, indices=palette.indices.copy(), lut=palette.lut.copy())
    affine = replace(quantized, data=quantized.data.copy(), scale=quantized.scale.copy())
    kept = replace(sparse, mask=sparse.mask.copy(), values=sparse.values.copy())
    masked = replace(joint, mask=joint.mask.copy())
    calls: list[tuple[Callable[[], Any], list[np.ndarray]]] = []
    tensors = ((table, ["indices", "lut"]), (affine, ["data", "scale"]), (kept, ["mask", "values"]), (masked, ["mask"]))
    for tensor, names in tensors:
        arrays = [getattr(tensor, name) for name in names]
        calls.append((tensor.dense, arrays))
        calls.append((lambda tensor=tensor: cp.error(weight, tensor), [weight, *arrays]))
    calls.append((lambda: cp.prune(table, target_sparsity=0.5), [table.indices, table.lut]))
    calls.append((lambda: cp.palettize(kept, nbits=2), [kept.mask, kept.values]))
    calls.append((lambda: cp.quantize(kept, dtype="int8"), [kept.mask, kept.values]))
    return calls


def calls_of(dtype: type, folder: str) -> list[tuple[Callable[[], Any], list[np.ndarray]]]:
    """Calls, and the arrays to rewrite meanwhile."""
    shape = (1024, 1088)
    weight = np.memmap(f"{folder}/{np.dtype(dtype)}", dtype, "w+", shape=shape)  # a file that is rewritten in place
    weight[...] = np.random.default_rng(1).normal(size=shape)
    importance = np.random.default_rng(2).random(shape, np.float32)
    small, mattering = np.ascontiguousarray(weight[:64, :256]), np.ascontiguousarray(importance[:64, :256])
    mask = np.packbits(np.random.default_rng(3).random(weight.size) < 0.5, bitorder="little")
    rows = np.random.default_rng(4).normal(size=(4, 3000))
    codes = np.random.default_rng(5).integers(0, 16, weight.size, np.uint8)
    each = {"granularity": "per_channel"}
    groups = {"granularity": "per_grouped_channel", "group_size": 64}
    blocks = {"granularity": "per_block", "block_size": 32}

    def decode() -> Any:
        kept = kernels.encode_sparse(weight, mask)
        return kernels.decode_sparse(kept, mask, shape)

    on_weight: list[Callable[[], Any]] = [
        lambda: cp.palettize(weight, nbits=4),
        lambda: cp.palettize(weight, nbits=6, mode="uniform"),
        lambda: cp.palettize(weight, nbits=8, **groups),
        lambda: cp.palettize(weight, nbits=4, nonfinite="table"),
        lambda: cp.palettize(weight, nbits=3, enable_per_channel_scale=True),
        lambda: cp.palettize(weight, nbits=8, mode="unique"),
        lambda: cp.quantize(weight, dtype="int8", **each),
        lambda: cp.quantize(weight, dtype="uint4", mode="linear", **blocks),
        lambda: cp.prune(weight, target_sparsity=0.5),
        lambda: cp.prune(weight, threshold=0.5),
        lambda: cp.prune(weight, n_m_ratio=(2, 4)),
        lambda: cp.prune(weight, n_m_ratio=(5, 7), dim=0),
        lambda: cp.prune(weight, target_sparsity=0.5, block_size=2, dim=1),
        lambda: cp.prune(weight, target_sparsity=0.5, block_size=7, dim=0),
        lambda: [each.dense() for each in (cp.prune(weight, target_sparsity=0.9),)],
        lambda: kernels.encode_sparse(weight, mask),
    ]
    calls = [(call, [weight]) for call in on_weight]
    calls += [
        (lambda: cp.palettize(weight, nbits=4, importance=importance), [weight, importance]),
        (
            lambda: cp.quantize(small, dtype="int4", scale_search="mse", importance=mattering, **blocks),
            [small, mattering],
        ),
        (lambda: cp.palettize(small, nbits=4, cluster_dim=2), [small]),
        (lambda: cp.palettize(small, nbits=6, cluster_dim=4, importance=mattering), [small, mattering]),
        (decode, [mask]),
        (lambda: kernels.pack_bits(codes, 4), [codes]),
        (lambda: kernels.kmeans1d(rows, 17), [rows]),
        (lambda: kernels.kmeans(small.reshape(-1, 4), 40), [small]),
    ]
    return calls + compressed_calls(np.array(weight))


def run(runs: int, seed: int) -> collections.Counter[str]:
    """Call what chance chooses, with arrays that change; the errors there were."""
    draw = random.Random(seed)
    errors: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
        calls = calls_of(np.float16, folder) + calls_of(np.float32, folder)
        order = [index % len(calls) for index in range(runs)]
        draw.shuffle(order)
        for index in order:
            call, arrays = calls[index]
            stop = threading.Event()
            writer = threading.Thread(target=rewrite, args=(arrays, draw.getrandbits(32), stop))
            faulthandler.dump_traceback_later(LONGEST, exit=True)
            writer.start()
            try:
                for _ in range(3):
                    call()
                errors["none"] += 1
            except (ValueError, IndexError) as error:
                errors[f"{type(error).__name__}: {str(error)[:80]}"] += 1
            finally:
                stop.set()
                writer.join()
        faulthandler.cancel_dump_traceback_later()
        del call, arrays, calls, writer  # Windows removes no file that is mapped
        gc.collect()
    return errors


@pytest.mark.parametrize("seed", [1, 2])
def test_results_or_errors(seed):
    command = [sys.executable, "-X", "faulthandler", __file__, str(RUNS), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * LONGEST)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    found = run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    for message, count in sorted(found.items()):
        print(f"{count:5} {message}")
