"""One result for every instruction set, every number of threads, and every caller."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import corepress as cp
from corepress import _core, kernels
from helpers.arrays import DTYPES, arrays_of, draw, normal
from helpers.processes import TIMEOUT

# Around the lanes of every level, the tiles of the loops (1024, 4096) and the pieces that threads take (65536).
COUNTS = [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1023, 1024, 1025, 4095, 4097, 65_535, 65_536, 65_537, 140_001]
THREADS = [1, 2, 5]


def digest(*parts: object) -> str:
    """A hash over every array and number of the results."""
    hashed = hashlib.sha256()
    for part in parts:
        arrays = [part] if isinstance(part, np.ndarray) else arrays_of(part)
        for array in arrays:
            hashed.update(f"{array.dtype} {array.shape}".encode())
            hashed.update(np.ascontiguousarray(array).tobytes())
        if isinstance(part, cp.Error):
            hashed.update(repr(part).encode())
    return hashed.hexdigest()


def palettes(weight, threads):
    for nbits in (1, 3, 4, 6, 8):
        tensor = cp.palettize(weight, nbits=nbits, num_threads=threads)
        yield from (tensor, tensor.dense(num_threads=threads), tensor.codes())


def affine(weight, threads):
    for dtype, mode in (("int8", "linear_symmetric"), ("uint8", "linear")):
        tensor = cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_tensor", num_threads=threads)
        yield from (tensor, tensor.dense(num_threads=threads))


def blocks(weight, threads):
    for length in (5, 32, 96):
        table = weight[: weight.size // length * length]
        if table.size:
            options = {"granularity": "per_block", "block_size": (length,), "num_threads": threads}
            tensor = cp.quantize(table, dtype="int4", **options)
            yield from (tensor, tensor.dense(num_threads=threads))
            if weight.size < 20_000:
                yield cp.quantize(table, dtype="int4", scale_search="mse", **options)
            tensor = cp.quantize(table, dtype="uint4", mode="linear", **options)
            yield from (tensor, tensor.dense(num_threads=threads), tensor.codes())


def small_codes(weight, threads):
    """Types of few bits, and scales of either kind."""
    for length in (5, 32, weight.size):
        table = weight[: weight.size // length * length]
        if not table.size:
            continue
        for dtype in ("int2", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"):
            for scale_dtype in (None, "float8_e8m0fnu"):
                search = "mse" if weight.size < 5000 else None
                tensor = cp.quantize(
                    table, dtype=dtype, granularity="per_block", block_size=(length,), scale_dtype=scale_dtype,
                    scale_search=search, num_threads=threads,
                )  # fmt: skip
                yield from (tensor, tensor.dense(num_threads=threads), cp.error(table, tensor, num_threads=threads))


def sparse(weight, threads):
    tensor = cp.prune(weight, target_sparsity=0.6, num_threads=threads)
    yield from (tensor, tensor.dense(num_threads=threads))


def structured(weight, threads):
    for shape in ((weight.size, 1), (1, weight.size), (weight.size // 21, 7, 3), (7, weight.size // 7)):
        table = weight[: int(np.prod(shape))].reshape(shape)
        for dim in (0, 1):
            yield cp.prune(table, n_m_ratio=(2, 4), dim=dim, num_threads=threads)
            yield cp.prune(table, n_m_ratio=(5, 12), dim=dim, num_threads=threads)
            yield cp.prune(table, target_sparsity=0.6, block_size=4, dim=dim, num_threads=threads)


def errors(weight, threads):
    yield cp.error(weight, weight[::-1].copy(), num_threads=threads)


def grouped(weight, threads):
    """The same numbers with runs and rows of several lengths."""
    for columns in (3, 16, 37, 512):
        rows = weight.size // columns
        if rows == 0:
            continue
        table = weight[: rows * columns].reshape(rows, columns)
        for axis in (0, 1):
            yield cp.quantize(table, mode="linear", channel_axis=axis, num_threads=threads)
        if columns % 16 == 0 and rows < 300:
            options = {"granularity": "per_grouped_channel", "group_size": 16, "channel_axis": 1}
            tensor = cp.palettize(table, nbits=3, num_threads=threads, **options)
            yield from (tensor, tensor.dense(num_threads=threads))


def vectors(weight, threads):
    for shape, axis, length, nbits in (
        ((-1, 2), 1, 2, 4),
        ((4, -1), 0, 4, 3),
        ((-1, 6, 7), 1, 3, 2),
        ((-1, 8), 1, 8, 8),
    ):
        row = int(np.prod([size for size in shape if size > 0]))
        if weight.size < row or (weight.size > 70_000 and length > 2) or (weight.size > 5000 and nbits == 8):
            continue
        table = weight[: weight.size // row * row].reshape(shape)
        importance = None if length < 3 else np.abs(table) + np.float32(0.01)
        options = {"cluster_dim": length, "channel_axis": axis, "num_threads": threads}
        tensor = cp.palettize(table, nbits=nbits, importance=importance, **options)
        yield from (tensor, tensor.dense(num_threads=threads), cp.error(table, tensor, num_threads=threads))
    if weight.size < 5000:
        yield from kernels.kmeans(weight.reshape(-1, 1), 9, np.abs(weight) + 1, num_threads=threads)[:2]


METHODS = [palettes, affine, blocks, small_codes, sparse, structured, errors, grouped, vectors]


@pytest.fixture
def restored_level():
    before = _core.simd_level()
    yield
    _core.set_simd_level(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_levels_and_threads_agree(restored_level, method, dtype):
    for count in COUNTS:
        weight = draw("laplace", count, dtype)
        found = {}
        for level in _core.simd_levels():
            _core.set_simd_level(level)
            for threads in THREADS:
                found[level, threads] = digest(*method(weight, threads))
        assert len(set(found.values())) == 1, (count, found)


@pytest.mark.parametrize("name", ["normal", "t3", "outliers", "bimodal"])
def test_large_floats_agree(restored_level, name):
    weight = draw(name, 600_000, np.float32)
    found = {digest(cp.palettize(weight, nbits=nbits, num_threads=threads)) for nbits in [4] for threads in THREADS}
    assert len(found) == 1


def test_groups_agree_whether_they_share_threads_or_not():
    weight = normal(8, 40_000)
    options = {"nbits": 4, "granularity": "per_grouped_channel"}
    for group_size in (1, 4):
        found = {
            digest(cp.palettize(weight, group_size=group_size, num_threads=threads, **options)) for threads in THREADS
        }
        assert len(found) == 1


def test_callers_at_the_same_time_do_not_disturb_each_other():
    weights = [draw("normal", 90_000 + index, dtype) for index in range(4) for dtype in DTYPES]

    def work(weight):
        tensor = cp.palettize(weight, nbits=4, num_threads=2)
        return digest(tensor, tensor.dense(), cp.quantize(weight), cp.prune(weight, target_sparsity=0.5))

    expected = [work(weight) for weight in weights]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, weights * 3)) == expected * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_works_after_a_fork():
    code = """if True:
        import os, numpy as np, corepress as cp
        weight = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
        expected = cp.palettize(weight, nbits=4, num_threads=3).indices.tobytes()
        child = os.fork()
        same = cp.palettize(weight, nbits=4, num_threads=3).indices.tobytes() == expected
        if child == 0:
            os._exit(0 if same else 7)
        _, status = os.waitpid(child, 0)
        assert same and os.waitstatus_to_exitcode(status) == 0, status
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT)


def run_with(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import numpy as np, corepress as cp; from corepress import _core; {code}"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_levels_are_listed_best_last():
    levels = cp.simd_levels()
    assert levels[0] == "baseline"
    assert cp.simd_level() in levels
    assert run_with("print(cp.simd_level())", COREPRESS_SIMD="").stdout.strip() == levels[-1]


@pytest.mark.parametrize("level", _core.simd_levels())
def test_a_level_is_forced_by_the_environment(level):
    assert run_with("print(cp.simd_level())", COREPRESS_SIMD=level).stdout.strip() == level


def test_an_unknown_level_fails_at_import_and_names_the_known_ones():
    finished = run_with("print('imported', cp.simd_level())", COREPRESS_SIMD="sse9")
    assert finished.returncode != 0
    assert "imported" not in finished.stdout
    assert "COREPRESS_SIMD must be one that this machine can run (baseline" in finished.stderr
    with pytest.raises(ValueError, match="simd level must be one that this machine can run"):
        _core.set_simd_level("")


def test_the_number_of_threads_is_set_by_the_environment():
    assert run_with("print(_core.default_threads())", COREPRESS_NUM_THREADS="7").stdout.strip() == "7"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert run_with("print(_core.default_threads())", COREPRESS_NUM_THREADS="").stdout.strip() == str(cpus)


@pytest.mark.parametrize("text", ["0", "-1", "many", "2.5", "3x", "99999999999999999999", "1025"])
def test_a_wrong_number_of_threads_is_refused(text):
    finished = run_with("cp.prune(np.ones(3, np.float32), threshold=0)", COREPRESS_NUM_THREADS=text)
    assert f"ValueError: prune: COREPRESS_NUM_THREADS must be a number from 1 to 1024, not '{text}'" in finished.stderr


def test_more_threads_than_the_system_has():
    weight = normal(300, 1000)
    assert digest(cp.quantize(weight, num_threads=200)) == digest(cp.quantize(weight, num_threads=1))


def test_packing_by_hand_gives_the_indices_of_a_palette():
    tensor = cp.palettize(normal(1001), nbits=3)
    assert kernels.pack_bits(tensor.codes(), 3).tobytes() == tensor.indices.tobytes()
