"""The C interface gives the bytes that Python gets, refuses what Python is refused, and can be built against."""

import concurrent.futures
import ctypes
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import corepress as cp

EXAMPLE = Path(__file__).parents[2] / "examples" / "native_host"
OK, INVALID_ARGUMENT, NON_FINITE, CANCELLED = 0, 1, 2, 5
FLOATS = {"float16": 0, "bfloat16": 1, "float32": 2}
CODES = {
    "int8": 0, "uint8": 1, "int4": 2, "uint4": 3, "int2": 4, "uint2": 5,
    "float8_e4m3fn": 6, "float8_e5m2": 7, "float4_e2m1fn": 8,
}  # fmt: skip
NBITS = {name: 4 if "4_" in name or name.endswith("4") else 2 if name.endswith("t2") else 8 for name in CODES}
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


MODES = {"kmeans": 0, "uniform": 1, "unique": 2}


def grouping(axis, size):
    return {"granularity": "per_grouped_channel", "group_size": size} if size else {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("axis", "size"), [(0, 0), (0, 4), (1, 5), (2, 1)])
@pytest.mark.parametrize(("mode", "nbits"), [("kmeans", 3), ("kmeans", 8), ("uniform", 4), ("unique", 6)])
def test_palettes(library, dtype, axis, size, mode, nbits):
    weight = draw(12, 15, 7, dtype=dtype)
    if mode == "unique":
        weight = (np.round(weight.astype(np.float32) * 100) / 128).astype(dtype)
    shape, groups = ctypes.byref(shape_of(weight)), Groups(axis, size)
    expected = cp.palettize(weight, nbits=nbits, mode=mode, channel_axis=axis, **grouping(axis, size))
    tables = library.corepress_table_count(shape, groups)
    assert tables * 2**nbits == expected.lut.size
    lut, indices, decoded = np.empty((tables, 2**nbits), dtype), packed(weight, nbits), np.empty_like(weight)
    status = library.corepress_palettize(
        pointer(weight), shape, nbits, MODES[mode], groups, None, 2, pointer(lut), pointer(indices)
    )
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(bits(lut).ravel(), bits(expected.lut).ravel())
    np.testing.assert_array_equal(indices, expected.indices)
    assigned = packed(weight, nbits)
    assert library.corepress_assign(pointer(weight), shape, nbits, pointer(lut), groups, 2, pointer(assigned)) == OK
    np.testing.assert_array_equal(assigned, expected.indices)
    status = library.corepress_depalettize(pointer(indices), pointer(lut), shape, nbits, groups, 2, pointer(decoded))
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_indices_of_given_tables(library, dtype):
    weight, table = draw(40, 30, dtype=dtype), np.linspace(-0.2, 0.25, 8).astype(dtype)
    expected = cp.palettize(weight, lut=table)
    indices, shape = packed(weight, 3), ctypes.byref(shape_of(weight))
    assert library.corepress_assign(pointer(weight), shape, 3, pointer(table), Groups(0, 0), 2, pointer(indices)) == OK
    np.testing.assert_array_equal(indices, expected.indices)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("axis", "size", "cluster_dim"), [(0, 0, 2), (0, 4, 4), (1, 0, 5), (1, 6, 3), (2, 2, 1)])
@pytest.mark.parametrize("importance", [None, 1, 2.0**-140])
def test_palettes_of_vectors(library, dtype, axis, size, cluster_dim, importance):
    weight = draw(12, 30, 8, dtype=dtype)
    if importance is not None:
        importance = importance * np.random.default_rng(1).random(weight.shape, np.float32)
    shape, groups = ctypes.byref(shape_of(weight)), Groups(axis, size)
    options = {"channel_axis": axis, "cluster_dim": cluster_dim, "importance": importance, **grouping(axis, size)}
    if cluster_dim == 1:
        options["cluster_dim"], weight = 2, np.repeat(weight, 2, axis=axis)  # pairs of equal numbers, beside numbers
        shape, cluster_dim = ctypes.byref(shape_of(weight)), 2
        options["importance"] = importance = None if importance is None else np.repeat(importance, 2, axis=axis)
    expected = cp.palettize(weight, nbits=4, **options)
    tables = library.corepress_table_count(shape, groups)
    lut, decoded = np.empty((tables, 16, cluster_dim), dtype), np.empty_like(weight)
    indices = np.empty((weight.size // cluster_dim * 4 + 7) // 8, np.uint8)
    status = library.corepress_palettize_vectors(
        pointer(weight), shape, 4, ctypes.c_int64(cluster_dim), groups, pointer(importance), 2, pointer(lut),
        pointer(indices),
    )  # fmt: skip
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(bits(lut).ravel(), bits(expected.lut).ravel())
    np.testing.assert_array_equal(indices, expected.indices)
    status = library.corepress_depalettize_vectors(
        pointer(indices), pointer(lut), shape, 4, ctypes.c_int64(cluster_dim), groups, 2, pointer(decoded)
    )
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_scales_of_channels(library, dtype, axis):
    weight = draw(12, 15, 7, dtype=dtype)
    np.moveaxis(weight, axis, 0)[3] = 0
    expected = cp.palettize(weight, nbits=4, enable_per_channel_scale=True, channel_axis=axis)
    shape, groups = ctypes.byref(shape_of(weight)), Groups(0, 0)
    scale, lut, indices = np.empty(weight.shape[axis], dtype), np.empty(16, dtype), packed(weight, 4)
    values = weight.copy()  # all in one place
    data = pointer(values)
    assert library.corepress_normalize(data, shape, axis, 2, pointer(scale), data) == OK
    assert library.corepress_palettize(data, shape, 4, 0, groups, None, 2, pointer(lut), pointer(indices)) == OK
    np.testing.assert_array_equal(bits(scale), bits(expected.scale.ravel()))
    np.testing.assert_array_equal(bits(lut), bits(expected.lut.ravel()))
    np.testing.assert_array_equal(indices, expected.indices)
    assert library.corepress_depalettize(pointer(indices), pointer(lut), shape, 4, groups, 2, data) == OK
    assert library.corepress_denormalize(data, shape, axis, pointer(scale), 2, data) == OK
    np.testing.assert_array_equal(bits(values), bits(expected.dense()))


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
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
@pytest.mark.parametrize("block_size", [None, (1, 0, 0), (0, 1, 0), (1, 5, 0), (3, 3, 7)])
def test_quantized(library, dtype, codes, mode, block_size):
    if codes.startswith("float") and mode == "linear":
        return
    weight = draw(12, 15, 7, dtype=dtype)
    blocks = {"granularity": "per_tensor"}
    if block_size is not None:
        blocks = {"granularity": "per_block", "block_size": block_size}
    expected = cp.quantize(weight, dtype=codes, mode=mode, **blocks)
    given = None if block_size is None else sizes(*block_size)
    shape = ctypes.byref(shape_of(weight))
    count = library.corepress_block_count(shape, given)
    assert count == expected.scale.size
    scale, zero_point = np.empty(count, dtype), np.empty(count, np.uint8)
    data, decoded = packed(weight, NBITS[codes]), np.empty_like(weight)
    numbers = {"linear_symmetric": 0, "linear": 1}
    status = library.corepress_quantize(
        pointer(weight), shape, CODES[codes], numbers[mode], given, 0, None, 2, pointer(scale),
        pointer(zero_point), pointer(data),
    )  # fmt: skip
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(bits(scale), bits(expected.scale.ravel()))
    np.testing.assert_array_equal(data, expected.data)
    if expected.zero_point is not None:
        np.testing.assert_array_equal(zero_point, expected.zero_point.ravel().view(np.uint8))
    status = library.corepress_dequantize(
        pointer(data), pointer(scale), pointer(zero_point), shape, CODES[codes], given, 2, pointer(decoded)
    )
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


def test_quantized_with_searched_scales(library):
    weight = draw(64, 32)
    expected = cp.quantize(weight, dtype="int4", granularity="per_block", block_size=16, scale_search="mse")
    scale, zero_point, data = np.empty(128, np.float16), np.empty(128, np.uint8), packed(weight, 4)
    status = library.corepress_quantize(
        pointer(weight), ctypes.byref(shape_of(weight)), CODES["int4"], 0, sizes(1, 16), 1, None, 0,
        pointer(scale), pointer(zero_point), pointer(data),
    )  # fmt: skip
    assert status == OK
    np.testing.assert_array_equal(scale, expected.scale.ravel())
    np.testing.assert_array_equal(data, expected.data)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("search", [False, True])
def test_quantized_with_powers_of_two(library, dtype, codes, search):
    weight = draw(12, 16, 7, dtype=dtype)
    options = {"granularity": "per_block", "block_size": (1, 8, 0), "scale_dtype": "float8_e8m0fnu"}
    expected = cp.quantize(weight, dtype=codes, scale_search="mse" if search else None, **options)
    shape, given = ctypes.byref(shape_of(weight)), sizes(1, 8, 0)
    exponent, zero_point = np.empty(24, np.uint8), np.empty(24, np.uint8)
    data, decoded = packed(weight, NBITS[codes]), np.empty_like(weight)
    status = library.corepress_quantize_e8m0(
        pointer(weight), shape, CODES[codes], given, int(search), None, 2, pointer(exponent), pointer(zero_point),
        pointer(data),
    )  # fmt: skip
    assert status == OK, library.corepress_last_error()
    np.testing.assert_array_equal(np.ldexp(1.0, exponent.astype(int) - 127), expected.scale.ravel())
    np.testing.assert_array_equal(data, expected.data)
    status = library.corepress_dequantize_e8m0(
        pointer(data), pointer(exponent), pointer(zero_point), shape, CODES[codes], given, 2, pointer(decoded)
    )
    assert status == OK
    np.testing.assert_array_equal(bits(decoded), bits(expected.dense()))


PRUNINGS = {
    "none": ("prune_to_sparsity", [ctypes.c_double(0)], {"target_sparsity": 0}),
    "half": ("prune_to_sparsity", [ctypes.c_double(0.5)], {"target_sparsity": 0.5}),
    "all": ("prune_to_sparsity", [ctypes.c_double(1)], {"target_sparsity": 1}),
    "threshold": ("prune_below", [ctypes.c_double(0.07)], {"threshold": 0.07}),
    "2:4": ("prune_n_m", [1, ctypes.c_int64(2), ctypes.c_int64(4)], {"n_m_ratio": (2, 4), "dim": 1}),
    "1:5": ("prune_n_m", [0, ctypes.c_int64(1), ctypes.c_int64(5)], {"n_m_ratio": (1, 5), "dim": 0}),
    **{
        f"blocks of {size} along {dim}, {sparsity}": (
            "prune_blocks",
            [dim, ctypes.c_int64(size), ctypes.c_double(sparsity)],
            {"target_sparsity": sparsity, "block_size": size, "dim": dim},
        )
        for dim, size, sparsity in [(0, 4, 0.5), (1, 3, 0.3), (1, 4, 0.6), (0, 99, 0.5), (0, 2, 0), (1, 2, 1)]
    },
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
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("order", ["little", "big"])
def test_packed(library, nbits, signed, order):
    codes = np.random.default_rng(nbits).integers(0, 2**nbits, 1001) - (2 ** (nbits - 1) if signed else 0)
    codes = codes.astype(np.int8 if signed else np.uint8)
    data, unpacked, count = packed(codes, nbits), np.empty_like(codes), ctypes.c_int64(1001)
    stream = (nbits, int(signed), ["little", "big"].index(order))
    assert library.corepress_pack_bits(pointer(codes), count, *stream, 2, pointer(data)) == OK
    np.testing.assert_array_equal(data, cp.kernels.pack_bits(codes, nbits, bitorder=order))
    assert library.corepress_unpack_bits(pointer(data), count, *stream, 2, pointer(unpacked)) == OK
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


class Errors(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_double)
        for name in ("squared_error", "squared_first", "squared_second", "product", "largest_error")
    ]


@pytest.mark.parametrize("dtype", DTYPES)
def test_compared(library, dtype):
    first, second = draw(30, 40, dtype=dtype), draw(30, 40, dtype=dtype)[::-1].copy()
    found = Errors()
    shape = ctypes.byref(shape_of(first))
    assert library.corepress_compare(pointer(first), pointer(second), shape, 0, ctypes.byref(found)) == OK
    expected = cp.error(first, second)
    assert (found.squared_error, found.largest_error) == (expected.sse, expected.max_abs)
    assert 10 * np.log10(found.squared_first / found.squared_error) == pytest.approx(expected.snr_db, rel=1e-12)
    cosine = found.product / np.sqrt(found.squared_first * found.squared_second)
    assert cosine == pytest.approx(expected.cosine, rel=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_have_a_status_of_their_own(library, value):
    weight = draw(100, 90)
    weight[77, 3] = value
    shape, space = ctypes.byref(shape_of(weight)), np.empty(2 * weight.size, np.uint8)
    out, kept = pointer(space), ctypes.c_int64()
    pairs, table = ctypes.c_int64(2), pointer(np.zeros(16, np.float16))
    calls = [
        library.corepress_palettize(pointer(weight), shape, 4, 0, Groups(0, 0), None, 1, out, out),
        library.corepress_palettize(pointer(weight), shape, 4, 1, Groups(0, 0), None, 1, out, out),
        library.corepress_palettize(pointer(weight), shape, 4, 2, Groups(0, 0), None, 1, out, out),
        library.corepress_palettize_vectors(pointer(weight), shape, 4, pairs, Groups(0, 0), None, 1, out, out),
        library.corepress_assign(pointer(weight), shape, 4, table, Groups(0, 0), 1, out),
        library.corepress_normalize(pointer(weight), shape, 0, 1, out, out),
        library.corepress_quantize(pointer(weight), shape, 0, 0, None, 0, None, 1, out, out, out),
    ]
    calls += [
        library.corepress_prune_blocks(
            pointer(weight), shape, 0, pairs, ctypes.c_double(0.5), 1, out, out, ctypes.byref(kept)
        ),
        library.corepress_prune_to_sparsity(
            pointer(weight), shape, ctypes.c_double(0.5), 1, out, out, ctypes.byref(kept)
        ),
    ]
    assert calls == [NON_FINITE] * 9
    assert library.corepress_last_error() == b"corepress_prune_to_sparsity: weights are NaN or infinite"


def test_wrong_arguments_are_refused_with_the_rule(library):
    weight = draw(6, 10)
    shape, space, kept = shape_of(weight), np.empty(weight.size * 2, np.uint8), ctypes.c_int64()
    data, out, by = pointer(weight), pointer(space), ctypes.byref

    def palettize(nbits=4, mode=0, groups=(0, 0), shape=shape, data=data, out=out):
        return library.corepress_palettize(data, by(shape), nbits, mode, Groups(*groups), None, 1, out, out)

    def vectors(length, groups=(0, 0)):
        arguments = (ctypes.c_int64(length), Groups(*groups), None, 1, out, out)
        return library.corepress_palettize_vectors(data, by(shape), 4, *arguments)

    def pack(codes, *stream):
        return library.corepress_pack_bits(pointer(codes), ctypes.c_int64(codes.size), *stream, 1, out)

    axes = sizes(6, 10)
    refused = {
        "nbits must be 1, 2, 3, 4, 6 or 8, not 5": lambda: palettize(nbits=5),
        "mode 3 is unknown": lambda: palettize(mode=3),
        "group 0 has more than 16 distinct values": lambda: palettize(mode=2),
        "importance is for COREPRESS_KMEANS": lambda: library.corepress_palettize(
            data, by(shape), 4, 1, Groups(0, 0), pointer(np.ones(60, np.float32)), 1, out, out
        ),
        "lut must ascend within each table": lambda: library.corepress_assign(
            data, by(shape), 1, pointer(np.array([1, 0], np.float16)), Groups(0, 0), 1, out
        ),
        "lut must be finite": lambda: library.corepress_assign(
            data, by(shape), 1, pointer(np.array([0, np.inf], np.float16)), Groups(0, 0), 1, out
        ),
        "cluster_dim must be at least 1, not 0": lambda: vectors(0),
        "cluster_dim 4 does not divide the axis of 6": lambda: vectors(4),
        "cluster_dim 3 does not divide groups of 2": lambda: vectors(3, (0, 2)),
        "axis must be from 0 to 1, not -1": lambda: vectors(2, (-1, 0)),
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
        "codes that are floats have no zero points": lambda: library.corepress_quantize(
            data, by(shape), 6, 1, None, 0, None, 1, out, out, out
        ),
        "exponent must not be NULL": lambda: library.corepress_quantize_e8m0(
            data, by(shape), 6, None, 0, None, 1, None, out, out
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
        "block_size must be at least 1, not 0": lambda: library.corepress_prune_blocks(
            data, by(shape), 1, ctypes.c_int64(0), ctypes.c_double(0.5), 1, out, out, by(kept)
        ),
        "a code does not fit 2 bits": lambda: pack(np.full(5, 4, np.uint8), 2, 0, 0),
        "a code does not fit 3 bits": lambda: pack(np.full(5, 4, np.uint8), 3, 1, 0),
        "order 2 is unknown": lambda: pack(np.zeros(5, np.uint8), 3, 1, 2),
        "nbits must be 1 to 8, not 9": lambda: pack(np.zeros(5, np.uint8), 9, 0, 0),
        "num_threads must be at least 1, not -1": lambda: library.corepress_unpack_bits(
            out, ctypes.c_int64(5), 2, 0, 0, -1, out
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


def test_threads_have_results_and_errors_of_their_own(library):
    before = threading.local()

    def work(number):
        if not hasattr(before, "error"):
            before.error = library.corepress_last_error()
        weight = draw(64, 30) * np.float16(number + 1)
        lut, indices, shape = np.empty(16, np.float16), packed(weight, 4), ctypes.byref(shape_of(weight))
        arguments = (0, Groups(0, 0), None, 2, pointer(lut), pointer(indices))
        assert library.corepress_palettize(pointer(weight), shape, 4, *arguments) == OK
        groups = Groups(0, 65 + number)
        assert library.corepress_palettize(pointer(weight), shape, 4, 0, groups, *arguments[2:]) == INVALID_ARGUMENT
        rule = f"groups of {65 + number} do not divide axis 0 of length 64"
        return before.error, lut, indices, library.corepress_last_error().decode().endswith(rule)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for number, (error, lut, indices, is_told) in enumerate(pool.map(work, range(64))):
            expected = cp.palettize(draw(64, 30) * np.float16(number + 1), nbits=4)
            np.testing.assert_array_equal(lut, expected.lut.ravel())
            np.testing.assert_array_equal(indices, expected.indices)
            assert (error, is_told) == (b"", True)


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


def test_a_host_can_cancel_the_calls_of_its_thread(library):
    weight = draw(2048, 2048, dtype=np.float32)
    shape, groups = ctypes.byref(shape_of(weight)), Groups(0, 0)
    entries = np.empty((1, 256, 4), np.float32)
    indices = np.empty(weight.size // 4, np.uint8)
    contexts = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    def cancel(context):
        contexts.append(context)
        return len(contexts) == 3

    def palettize():
        return library.corepress_palettize_vectors(
            pointer(weight), shape, 8, ctypes.c_int64(4), groups, None, 1, pointer(entries), pointer(indices)
        )

    library.corepress_set_cancel(cancel, ctypes.c_void_p(7))
    try:
        assert palettize() == CANCELLED
        assert contexts == [7] * 3
        assert library.corepress_last_error() == b"corepress_palettize_vectors: the host asked for the end of the call"
        with concurrent.futures.ThreadPoolExecutor(1) as other:
            assert other.submit(palettize).result() == OK
        assert len(contexts) == 3, "another thread has a function of its own"
    finally:
        library.corepress_set_cancel(None, None)
    assert palettize() == OK


def test_a_host_is_asked_in_every_pass(library):
    values = np.random.default_rng(0).standard_normal(6_000_000)
    codes, centroids, inertia = np.empty(values.size, np.int32), np.empty(16), np.empty(1)
    moments = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    def cancel(context):
        moments.append(time.thread_time())  # of the CPU: other work on the machine does not count
        return 0

    library.corepress_set_cancel(cancel, None)
    try:
        moments.append(time.thread_time())
        status = library.corepress_kmeans1d(
            pointer(values), None, ctypes.c_int64(values.size), 16, pointer(codes), pointer(centroids), pointer(inertia)
        )
        moments.append(time.thread_time())
    finally:
        library.corepress_set_cancel(None, None)
    assert status == OK
    waits = np.diff(moments)
    assert waits.size > 20
    assert waits.max() < 0.25 * waits.sum(), "no part of the call is without a question"
