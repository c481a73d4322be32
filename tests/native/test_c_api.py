"""The C interface gives the bytes that Python gets, refuses what Python is refused, and can be built against."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import corepress as cp

EXAMPLE = Path(__file__).parents[2] / "examples" / "native_host"
OK, INVALID_ARGUMENT, NON_FINITE = 0, 1, 2
FLOATS = {"float16": 0, "bfloat16": 1, "float32": 2}
INTEGERS = {"int8": 0, "uint8": 1, "int4": 2, "uint4": 3}
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32]


class Shape(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_int), ("rank", ctypes.c_int), ("shape", ctypes.POINTER(ctypes.c_int64))]


class Groups(ctypes.Structure):
    _fields_ = [("axis", ctypes.c_int), ("size", ctypes.c_int64)]


@pytest.fixture(scope="module")
def library():
    loaded = ctypes.CDLL(cp.get_library())
    for name in ("corepress_version", "corepress_last_error", "corepress_simd_level"):
        getattr(loaded, name).restype = ctypes.c_char_p
    for name in ("corepress_packed_size", "corepress_table_count", "corepress_block_count"):
        getattr(loaded, name).restype = ctypes.c_int64
    return loaded


def shape_of(array):
    return Shape(FLOATS[array.dtype.name], array.ndim, (ctypes.c_int64 * array.ndim)(*array.shape))


def pointer(array):
    return None if array is None else ctypes.c_void_p(array.ctypes.data)


def sizes(*numbers):
    return (ctypes.c_int64 * len(numbers))(*numbers)


def draw(*shape, dtype=np.float16):
    return (0.1 * np.random.default_rng(5).standard_normal(shape)).astype(dtype)


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


def packed(array, nbits):
    return np.empty((array.size * nbits + 7) // 8, np.uint8)


def test_version_and_level(library):
    assert library.corepress_version().decode() == cp.__version__
    assert library.corepress_simd_level().decode() in cp.simd_levels()
    assert library.corepress_packed_size(ctypes.c_int64(11), 3) == 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("axis", "size"), [(0, 0), (0, 4), (1, 5)])
@pytest.mark.parametrize(("mode", "nbits"), [("kmeans", 3), ("kmeans", 8), ("uniform", 4)])
def test_palettes(library, dtype, axis, size, mode, nbits):
    weight = draw(12, 15, 7, dtype=dtype)
    shape, groups = shape_of(weight), Groups(axis, size)
    grouped = {"granularity": "per_grouped_channel", "group_size": size, "channel_axis": axis} if size else {}
    expected = cp.palettize(weight, nbits=nbits, mode=mode, **grouped)
    tables = library.corepress_table_count(ctypes.byref(shape), groups)
    assert tables * 2**nbits == expected.lut.size
    lut, indices, decoded = np.empty((tables, 2**nbits), dtype), packed(weight, nbits), np.empty_like(weight)
    numbers = {"kmeans": 0, "uniform": 1}
    status = library.corepress_palettize(
        pointer(weight), ctypes.byref(shape), nbits, numbers[mode], groups, None, 2, pointer(lut), pointer(indices)
    )
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(bits(lut).ravel(), bits(expected.lut).ravel())
    np.testing.assert_array_equal(indices, expected.indices)
    status = library.corepress_depalettize(
        pointer(indices), pointer(lut), ctypes.byref(shape), nbits, groups, 2, pointer(decoded)
    )
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


def test_palettes_of_what_matters(library):
    weight = draw(40, 30)
    importance = np.random.default_rng(1).random(weight.shape, np.float32)
    expected = cp.palettize(weight, nbits=2, importance=importance)
    lut, indices = np.empty(4, np.float16), packed(weight, 2)
    arguments = [pointer(importance), 1, pointer(lut), pointer(indices)]
    shape = ctypes.byref(shape_of(weight))
    assert library.corepress_palettize(pointer(weight), shape, 2, 0, Groups(0, 0), *arguments) == OK
    np.testing.assert_array_equal(lut, expected.lut.ravel())
    np.testing.assert_array_equal(indices, expected.indices)
    importance[3, 3] = -1
    assert library.corepress_palettize(pointer(weight), shape, 2, 0, Groups(0, 0), *arguments) == INVALID_ARGUMENT
    assert b"importance must be finite and not negative, not -1" in library.corepress_last_error()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("integers", INTEGERS)
@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
@pytest.mark.parametrize("block_size", [None, (1, 0, 0), (0, 1, 0), (1, 5, 0), (3, 3, 7)])
def test_quantized(library, dtype, integers, mode, block_size):
    weight = draw(12, 15, 7, dtype=dtype)
    blocks = {"granularity": "per_tensor"}
    if block_size is not None:
        blocks = {"granularity": "per_block", "block_size": block_size}
    expected = cp.quantize(weight, dtype=integers, mode=mode, **blocks)
    given = None if block_size is None else sizes(*block_size)
    shape = ctypes.byref(shape_of(weight))
    count = library.corepress_block_count(shape, given)
    assert count == expected.scale.size
    scale, zero_point = np.empty(count, dtype), np.empty(count, np.uint8)
    data, decoded = packed(weight, 8 if integers.endswith("8") else 4), np.empty_like(weight)
    numbers = {"linear_symmetric": 0, "linear": 1}
    status = library.corepress_quantize(
        pointer(weight), shape, INTEGERS[integers], numbers[mode], given, 0, None, 2, pointer(scale),
        pointer(zero_point), pointer(data),
    )  # fmt: skip
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(bits(scale), bits(expected.scale.ravel()))
    np.testing.assert_array_equal(data, expected.data)
    if expected.zero_point is not None:
        np.testing.assert_array_equal(zero_point, expected.zero_point.ravel().view(np.uint8))
    status = library.corepress_dequantize(
        pointer(data), pointer(scale), pointer(zero_point), shape, INTEGERS[integers], given, 2, pointer(decoded)
    )
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


def test_quantized_with_searched_scales(library):
    weight = draw(64, 32)
    expected = cp.quantize(weight, dtype="int4", granularity="per_block", block_size=16, scale_search="mse")
    scale, zero_point, data = np.empty(128, np.float16), np.empty(128, np.uint8), packed(weight, 4)
    status = library.corepress_quantize(
        pointer(weight), ctypes.byref(shape_of(weight)), INTEGERS["int4"], 0, sizes(1, 16), 1, None, 0,
        pointer(scale), pointer(zero_point), pointer(data),
    )  # fmt: skip
    assert status == OK
    np.testing.assert_array_equal(scale, expected.scale.ravel())
    np.testing.assert_array_equal(data, expected.data)


PRUNINGS = {
    "none": ("prune_to_sparsity", [ctypes.c_double(0)], {"target_sparsity": 0}),
    "half": ("prune_to_sparsity", [ctypes.c_double(0.5)], {"target_sparsity": 0.5}),
    "all": ("prune_to_sparsity", [ctypes.c_double(1)], {"target_sparsity": 1}),
    "threshold": ("prune_below", [ctypes.c_double(0.07)], {"threshold": 0.07}),
    "2:4": ("prune_n_m", [1, ctypes.c_int64(2), ctypes.c_int64(4)], {"n_m_ratio": (2, 4), "dim": 1}),
    "1:5": ("prune_n_m", [0, ctypes.c_int64(1), ctypes.c_int64(5)], {"n_m_ratio": (1, 5), "dim": 0}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRUNINGS)
def test_pruned(library, dtype, name):
    weight = draw(12, 15, 7, dtype=dtype)
    function, arguments, keywords = PRUNINGS[name]
    expected = cp.prune(weight, **keywords)
    mask, room, kept = packed(weight, 1), np.empty_like(weight).ravel(), ctypes.c_int64(-1)
    prune, shape = getattr(library, f"corepress_{function}"), ctypes.byref(shape_of(weight))
    assert prune(pointer(weight), shape, *arguments, 2, pointer(mask), pointer(room), ctypes.byref(kept)) == OK
    np.testing.assert_array_equal(mask, expected.mask)
    np.testing.assert_array_equal(bits(room[: kept.value]), bits(expected.values))
    values, decoded = np.empty(kept.value, dtype), np.empty_like(weight)
    assert library.corepress_encode_sparse(pointer(weight), shape, pointer(mask), 2, pointer(values)) == OK
    np.testing.assert_array_equal(bits(values), bits(expected.values))
    assert library.corepress_decode_sparse(pointer(values), pointer(mask), shape, 2, pointer(decoded)) == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


@pytest.mark.parametrize("nbits", range(1, 9))
def test_packed(library, nbits):
    codes = np.random.default_rng(nbits).integers(0, 2**nbits, 1001, np.uint8)
    data, unpacked = packed(codes, nbits), np.empty_like(codes)
    assert library.corepress_pack_bits(pointer(codes), ctypes.c_int64(1001), nbits, 2, pointer(data)) == OK
    np.testing.assert_array_equal(data, cp.kernels.pack_bits(codes, nbits))
    assert library.corepress_unpack_bits(pointer(data), ctypes.c_int64(1001), nbits, 2, pointer(unpacked)) == OK
    np.testing.assert_array_equal(unpacked, codes)


@pytest.mark.parametrize("weighted", [False, True])
def test_kmeans1d(library, weighted):
    rng = np.random.default_rng(2)
    values, weights = rng.standard_normal(500), rng.random(500) if weighted else None
    expected_codes, expected_centroids, expected_inertia = cp.kernels.kmeans1d(values, 7, weights)
    codes, centroids, inertia = np.empty(500, np.int32), np.empty(7), ctypes.c_double()
    status = library.corepress_kmeans1d(
        pointer(values), pointer(weights), ctypes.c_int64(500), 7, pointer(codes), pointer(centroids),
        ctypes.byref(inertia),
    )  # fmt: skip
    assert status == OK
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(centroids, expected_centroids)
    assert inertia.value == expected_inertia


def test_squared_error(library):
    first, second = draw(30, 40), draw(30, 40)[::-1].copy()
    noise, signal = ctypes.c_double(), ctypes.c_double()
    status = library.corepress_squared_error(
        pointer(first), pointer(second), ctypes.byref(shape_of(first)), 0, ctypes.byref(noise), ctypes.byref(signal)
    )
    assert status == OK
    assert noise.value == cp.error(first, second).sse
    assert signal.value == pytest.approx(float((first.astype(np.float64) ** 2).sum()), rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_a_status_of_their_own(library, value):
    weight = draw(100, 90)
    weight[77, 3] = value
    shape, space = ctypes.byref(shape_of(weight)), np.empty(2 * weight.size, np.uint8)
    out, kept = pointer(space), ctypes.c_int64()
    calls = [
        library.corepress_palettize(pointer(weight), shape, 4, 0, Groups(0, 0), None, 1, out, out),
        library.corepress_palettize(pointer(weight), shape, 4, 1, Groups(0, 0), None, 1, out, out),
        library.corepress_quantize(pointer(weight), shape, 0, 0, None, 0, None, 1, out, out, out),
        library.corepress_prune_to_sparsity(
            pointer(weight), shape, ctypes.c_double(0.5), 1, out, out, ctypes.byref(kept)
        ),
    ]  # fmt: skip
    assert calls == [NON_FINITE] * 4
    assert library.corepress_last_error() == b"corepress_prune_to_sparsity: weights are NaN or infinite"


def test_wrong_arguments_are_refused_with_the_rule(library):
    weight = draw(6, 10)
    shape, space, kept = shape_of(weight), np.empty(weight.size * 2, np.uint8), ctypes.c_int64()
    data, out, by = pointer(weight), pointer(space), ctypes.byref

    def palettize(nbits=4, mode=0, groups=(0, 0), shape=shape, data=data, out=out):
        return library.corepress_palettize(data, by(shape), nbits, mode, Groups(*groups), None, 1, out, out)

    axes = sizes(6, 10)
    refused = {
        "nbits must be 1, 2, 3, 4, 6 or 8, not 5": lambda: palettize(nbits=5),
        "mode 2 is unknown": lambda: palettize(mode=2),
        "groups of 4 do not divide axis 0 of length 6": lambda: palettize(groups=(0, 4)),
        "axis must be from 0 to 1, not 2": lambda: palettize(groups=(2, 1)),
        "weights must not be NULL": lambda: palettize(data=None),
        "lut must not be NULL": lambda: palettize(out=None),
        "dtype 3 is unknown": lambda: palettize(shape=Shape(3, 2, axes)),
        "rank must be 0 to 32, not 33": lambda: palettize(shape=Shape(0, 33, axes)),
        "shape->shape must not be NULL": lambda: palettize(shape=Shape(0, 2, None)),
        "shape has an axis of -6": lambda: palettize(shape=Shape(0, 2, sizes(-6, 10))),
        "shape is too large": lambda: palettize(shape=Shape(0, 2, sizes(2**40, 2**40))),
        "the tensor has no elements": lambda: palettize(shape=Shape(0, 2, sizes(0, 10))),
        "blocks of 4 do not divide axis 1 of length 10": lambda: library.corepress_quantize(
            data, by(shape), 0, 0, sizes(1, 4), 0, None, 1, out, out, out
        ),
        "dtype 9 is unknown": lambda: library.corepress_quantize(
            data, by(shape), 9, 0, None, 0, None, 1, out, out, out
        ),
        "importance needs search_scale": lambda: library.corepress_quantize(
            data, by(shape), 0, 0, None, 0, pointer(np.ones(60, np.float32)), 1, out, out, out
        ),
        "sparsity must be from 0 to 1, not 1.5": lambda: library.corepress_prune_to_sparsity(
            data, by(shape), ctypes.c_double(1.5), 1, out, out, by(kept)
        ),
        "threshold must not be negative or NaN, but is -1": lambda: library.corepress_prune_below(
            data, by(shape), ctypes.c_double(-1), 1, out, out, by(kept)
        ),
        "n:m must have 0 <= n <= m and 1 <= m <= 1024, not 5:4": lambda: library.corepress_prune_n_m(
            data, by(shape), 1, ctypes.c_int64(5), ctypes.c_int64(4), 1, out, out, by(kept)
        ),
        "a code does not fit 2 bits": lambda: library.corepress_pack_bits(
            pointer(np.full(5, 4, np.uint8)), ctypes.c_int64(5), 2, 1, out
        ),
        "num_threads must be at least 1, not -1": lambda: library.corepress_unpack_bits(
            out, ctypes.c_int64(5), 2, -1, out
        ),
        "all weights are 0": lambda: library.corepress_kmeans1d(
            pointer(np.ones(3)), pointer(np.zeros(3)), ctypes.c_int64(3), 2, out, out, out
        ),
    }  # fmt: skip
    for rule, call in refused.items():
        assert call() == INVALID_ARGUMENT, rule
        assert rule in library.corepress_last_error().decode()
    assert library.corepress_table_count(by(shape), Groups(0, 4)) == -1
    assert library.corepress_block_count(by(shape), sizes(5, 1)) == -1


@pytest.mark.skipif(shutil.which("cmake") is None or sys.platform == "win32", reason="needs cmake and a C compiler")
def test_a_host_finds_builds_and_runs(tmp_path):
    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("cmake", "-S", EXAMPLE, "-B", tmp_path, f"-Dcorepress_DIR={cp.get_cmake_dir()}")
    run("cmake", "--build", tmp_path)
    lines = run(tmp_path / "native_host").splitlines()
    assert lines[0].startswith(f"corepress {cp.__version__} (")
    assert [line.split()[-2:] for line in lines[1:]] == [["21.00", "dB"], ["43.74", "dB"], ["11.17", "dB"]]
    assert (Path(cp.get_include()) / "corepress.h").exists()
