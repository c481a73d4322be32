"""Affine quantization: the bits of the reference, and never worse than coremltools."""

from __future__ import annotations

import itertools
import re

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress import reference
from helpers.arrays import CORE_ML_DTYPES, DRAWS, DTYPES, assert_same_bits, draw, normal

STORAGE = {
    "int8": np.int8, "uint8": np.uint8, "int4": np.int8, "uint4": np.uint8, "int2": np.int8, "uint2": np.uint8
}  # fmt: skip
ENCODINGS = list(itertools.product(STORAGE, ["linear_symmetric", "linear"]))
CORE_ML_ENCODINGS = [each for each in ENCODINGS if not each[0].endswith("2")]
RANGES = {
    ("int8", "linear_symmetric"): (-127, 127),
    ("int8", "linear"): (-128, 127),
    ("uint8", "linear_symmetric"): (0, 254),
    ("uint8", "linear"): (0, 255),
    ("int4", "linear_symmetric"): (-7, 7),
    ("int4", "linear"): (-8, 7),
    ("uint4", "linear_symmetric"): (0, 14),
    ("uint4", "linear"): (0, 15),
    ("int2", "linear_symmetric"): (-1, 1),
    ("int2", "linear"): (-2, 1),
    ("uint2", "linear_symmetric"): (0, 2),
    ("uint2", "linear"): (0, 3),
}
HAZARDS = {
    "range beyond 32768": [-40_000.0, 40_000.0, 1.0, 0.0],
    "largest half": [65_504.0, -65_504.0, 3.0],
    "largest half on one side": [65_504.0, 1.0],
    "unequal sides": [-260.0, 260.0, 1.0, 2.0],
    "at 600": [-600.0, 600.0, 5.0, -7.0],
    "smallest subnormal": [2.0**-24, 0.0],
    "subnormal scale": [7e-3, -1e-3, 3e-4],
    "scale would be zero": [3e-6, -1e-6],
    "constant": [0.7, 0.7, 0.7],
    "negative constant": [-0.7, -0.7],
    "all zero": [0.0, -0.0, 0.0],
    "positive": [1.0, 2.0, 3.0],
    "negative": [-1.0, -2.5, -3.0],
    "ties": list(np.arange(-127, 127.5, 0.5)),
    "one value": [5.0],
}
LAYOUTS = [(40, 3, 3), (3, 40), (300, 5), (9, 33), (8, 31), (2, 3, 70), (16, 40, 2), (1200, 2), (7,), (5, 1)]


def check_blocks(weight: np.ndarray, tensor: cp.QuantizedTensor, dtype: str, mode: str, axis: int | None) -> None:
    """Codes, scales, zero points and decompressed values have the bits of the reference, block by block."""
    code_range, symmetric = RANGES[dtype, mode], mode == "linear_symmetric"
    assert (tensor.zero_point is None) == (symmetric and dtype.startswith("int"))
    scales = tensor.scale.reshape(-1)
    storage = STORAGE[dtype]
    offsets = np.zeros(scales.size, storage) if tensor.zero_point is None else tensor.zero_point.reshape(-1)
    assert offsets.dtype == tensor.codes().dtype == storage
    parts = [
        [array] if axis is None else np.moveaxis(array, axis, 0) for array in (weight, tensor.codes(), tensor.dense())
    ]
    for part, part_codes, part_dense, scale, offset in zip(*parts, scales, offsets, strict=True):
        codes, expected_scale, zero_point = reference.quantize(part, code_range, symmetric)
        assert scale == expected_scale
        assert offset == zero_point
        np.testing.assert_array_equal(part_codes, codes)
        assert_same_bits(part_dense, reference.dequantize(codes, expected_scale, zero_point))


def check_grid(weight: np.ndarray, tensor: cp.QuantizedTensor, dtype: str, mode: str, search: bool = False) -> None:
    """The same for blocks along several axes."""
    codes, dense = tensor.codes(), tensor.dense()
    for place in np.ndindex(tensor.scale.shape):
        block = tuple(
            slice(index * size, (index + 1) * size) for index, size in zip(place, tensor.block_shape, strict=True)
        )
        symmetric = mode == "linear_symmetric"
        expected, scale, zero_point = reference.quantize(weight[block], RANGES[dtype, mode], symmetric, search)
        assert tensor.scale[place] == scale
        assert zero_point == (0 if tensor.zero_point is None else tensor.zero_point[place])
        np.testing.assert_array_equal(codes[block], expected)
        assert_same_bits(dense[block], reference.dequantize(expected, scale, zero_point))


# Shapes, and block sizes of every kind: neighbouring axes that join, rows, runs, single elements, whole axes.
GRIDS = [
    ((6, 64), (1, 32)),
    ((64, 6), (32, 1)),
    ((3, 96), (1, 3)),
    ((5, 48), (1, 16)),
    ((96, 7), (3, 1)),
    ((4, 8, 3, 3), (1, 4, 0, 0)),
    ((8, 4, 2, 2), (4, 1, 0, 0)),
    ((2, 32, 5), (0, 8, 1)),
    ((2, 5, 32), (0, 1, 8)),
    ((4, 6, 8), (2, 3, 4)),
    ((4, 6, 8), (2, 0, 4)),
    ((4, 3, 8, 2, 6), (2, 0, 4, 1, 3)),
    ((4, 3, 8, 2, 6), (0, 1, 0, 1, 0)),
    ((1, 1), (1, 1)),
    ((35,), (5,)),
    ((35,), (7,)),
    ((33,), (1,)),
    ((9, 7), (1, 1)),
]


@pytest.mark.parametrize(("dtype", "mode"), ENCODINGS)
@pytest.mark.parametrize(("shape", "block_size"), GRIDS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_every_grid_of_blocks(simd_level, weight_dtype, shape, block_size, dtype, mode):
    weight = normal(*shape, dtype=weight_dtype)
    tensor = cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_block", block_size=block_size)
    assert tensor.block_shape == tuple(size or length for size, length in zip(block_size, shape, strict=True))
    check_grid(weight, tensor, dtype, mode)


@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "block_size"),
    [
        ((512, 1056), (1, 32)),  # many runs in several pieces
        ((1056, 513), (32, 1)),  # slabs of odd size
        ((9, 64, 1025), (0, 32, 1)),  # blocks spread over the tensor
        ((64, 33, 257), (0, 3, 257)),
        ((2, 130, 1100), (0, 0, 1)),
        ((3, 200_000), (3, 200_000)),
    ],
)
def test_large_grids(weight_dtype, shape, block_size):
    weight = normal(*shape, dtype=weight_dtype)
    for dtype, mode in (("int4", "linear"), ("uint8", "linear_symmetric")):
        tensor = cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_block", block_size=block_size)
        grid = [part for size, blocks in zip(tensor.block_shape, tensor.scale.shape, strict=True)
                for part in (blocks, size)]  # fmt: skip
        axes = tuple(range(1, 2 * weight.ndim, 2))
        blocks = weight.reshape(grid).astype(np.float64)
        low, high = blocks.min(axes), blocks.max(axes)
        lowest, highest = RANGES[dtype, mode]
        if mode == "linear":
            scale = reference.round_to((np.maximum(high, 0) - np.minimum(low, 0)), weight_dtype).astype(np.float64)
        else:
            scale = 2 * np.maximum(-low, high)
        np.testing.assert_array_equal(tensor.scale, reference.round_to(scale / (highest - lowest), weight_dtype))
        zero_point = 0 if tensor.zero_point is None else tensor.zero_point
        scales = np.expand_dims(tensor.scale, axes).astype(np.float32)
        offsets = np.expand_dims(zero_point, axes)
        codes = np.clip(np.rint(weight.reshape(grid) / scales) + offsets, lowest, highest)
        np.testing.assert_array_equal(tensor.codes(), codes.reshape(shape))
        dense = ((codes - offsets).astype(np.float32) * scales).astype(weight_dtype).reshape(shape)
        np.testing.assert_array_equal(tensor.dense(), dense)


@pytest.mark.parametrize(
    ("shape", "channel_axis", "scale_shape"),
    [
        ((64, 96), None, (64, 3)),
        ((64, 96), 0, (64, 3)),
        ((64, 96), 1, (2, 96)),
        ((64, 96), -1, (2, 96)),
        ((64, 96), -2, (64, 3)),
        ((8, 32, 3, 3), 0, (8, 1, 1, 1)),
        ((64, 8, 3, 3), 1, (2, 8, 1, 1)),
        ((5, 64, 32), -1, (1, 2, 32)),
        ((5, 64, 32), -2, (1, 64, 1)),
    ],
)
def test_one_block_size_is_along_the_input_axis(shape, channel_axis, scale_shape):
    weight = normal(*shape)
    options = {"granularity": "per_block", "channel_axis": channel_axis}
    assert cp.quantize(weight, **options).scale.shape == scale_shape
    assert cp.quantize(weight, block_size=1, **options).block_shape.count(1) >= 2


@pytest.mark.parametrize(("dtype", "mode"), ENCODINGS)
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_same_bits_as_the_reference(name, weight_dtype, dtype, mode):
    weight = draw(name, 2100, weight_dtype)
    check_blocks(weight, cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_tensor"), dtype, mode, None)
    rows = weight.reshape(3, 700)
    check_blocks(rows, cp.quantize(rows, dtype=dtype, mode=mode), dtype, mode, 0)


@pytest.mark.parametrize(("dtype", "mode"), ENCODINGS)
@pytest.mark.parametrize("shape", LAYOUTS)
def test_every_axis(simd_level, shape, dtype, mode):
    weight = normal(*shape, dtype=np.float16)
    for axis in range(-len(shape), len(shape)):
        tensor = cp.quantize(weight, dtype=dtype, mode=mode, channel_axis=axis)
        assert tensor.scale.shape == tuple(
            size if place == axis % len(shape) else 1 for place, size in enumerate(shape)
        )
        check_blocks(weight, tensor, dtype, mode, axis)


@pytest.mark.parametrize(("dtype", "mode"), ENCODINGS)
@pytest.mark.parametrize("name", HAZARDS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_hazards(simd_level, name, weight_dtype, dtype, mode):
    weight = np.array(HAZARDS[name], weight_dtype)
    tensor = cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_tensor")
    check_blocks(weight, tensor, dtype, mode, None)
    assert (tensor.scale > 0).all()
    dense = tensor.dense()
    assert np.isfinite(dense).all()
    assert not dense[weight == 0].any()  # zero stays exact in every mode
    # Half a step; more at the ends where the scale had to be rounded down to its format or to a finite result.
    exact, scale = weight.astype(np.float64), float(tensor.scale.item())
    low, high = min(exact.min(), 0), max(exact.max(), 0)
    span = 2 * max(-low, high) if mode == "linear_symmetric" else high - low
    lowest, highest = RANGES[dtype, mode]
    slack = 128 * max(span / (highest - lowest) - scale, 0) + np.abs(exact).max() * ml_dtypes.finfo(weight_dtype).eps
    assert np.abs(dense - exact).max() <= 0.5 * scale + slack


@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_codes_reach_the_ends_and_the_zero_point_is_where_zero_is(weight_dtype):
    weight = np.array([-1.0, 0.0, 3.0], weight_dtype)
    symmetric = cp.quantize(weight, granularity="per_tensor")
    assert symmetric.codes().tolist() == [-42, 0, 127]
    shifted = cp.quantize(weight, dtype="uint8", granularity="per_tensor")
    assert shifted.codes().tolist() == [127 - 42, 127, 254]
    assert shifted.zero_point.item() == 127
    linear = cp.quantize(weight, dtype="uint8", mode="linear", granularity="per_tensor")
    assert linear.codes().tolist() == [0, 64, 255]
    assert linear.zero_point.item() == 64


def test_an_all_zero_block_has_scale_one():
    tensor = cp.quantize(np.zeros((2, 3), np.float16), mode="linear")
    assert tensor.scale.tolist() == [[1.0], [1.0]]
    assert tensor.zero_point.tolist() == [[0], [0]]
    assert not tensor.codes().any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("weight_dtype", CORE_ML_DTYPES)
@pytest.mark.parametrize(("dtype", "mode"), CORE_ML_ENCODINGS)
def test_error_is_never_above_that_of_coremltools(coremltools_utils, dtype, mode, weight_dtype, axis):
    from coremltools.converters.mil.mil import types

    builtin = getattr(types, dtype)
    for name in ("normal", "uniform", "laplace", "lognormal", "bimodal", "subnormal", "far from zero"):
        weight = draw(name, 2400, weight_dtype).reshape(4, 20, 30)
        ours = cp.quantize(weight, dtype=dtype, mode=mode, channel_axis=axis)
        block_sizes = [int(place == axis) for place in range(3)]
        with np.errstate(all="ignore"):
            codes, scale, zero_point = coremltools_utils.compute_qparams_by_dtype(
                weight, builtin, mode.upper(), block_sizes
            )
        theirs = coremltools_utils.dequantize_by_scale_and_zp(codes, scale, zero_point)
        exact = weight.astype(np.float64)
        our_error = ((ours.dense().astype(np.float64) - exact) ** 2).sum()
        their_error = ((theirs.astype(np.float64) - exact) ** 2).sum()
        assert our_error <= their_error or np.isnan(their_error), name


@pytest.mark.parametrize("block_size", [(1, 32), (32, 1), (4, 16)])
@pytest.mark.parametrize("weight_dtype", CORE_ML_DTYPES)
@pytest.mark.parametrize(("dtype", "mode"), CORE_ML_ENCODINGS)
def test_error_of_blocks_is_never_above_that_of_coremltools(coremltools_utils, dtype, mode, weight_dtype, block_size):
    from coremltools.converters.mil.mil import types

    for name in ("normal", "uniform", "laplace", "t3", "subnormal", "far from zero"):
        weight = draw(name, 64 * 128, weight_dtype).reshape(64, 128)
        ours = cp.quantize(weight, dtype=dtype, mode=mode, granularity="per_block", block_size=block_size)
        with np.errstate(all="ignore"):
            parts = coremltools_utils.compute_qparams_by_dtype(
                weight, getattr(types, dtype), mode.upper(), list(block_size)
            )
        theirs = coremltools_utils.dequantize_by_scale_and_zp(*parts).astype(np.float64)
        exact = weight.astype(np.float64)
        our_error = ((ours.dense().astype(np.float64) - exact) ** 2).sum()
        assert our_error <= ((theirs - exact) ** 2).sum() or np.isnan(theirs).any(), name


def test_int4_float32_blocks_have_the_codes_of_coremltools(coremltools_utils):
    from coremltools.converters.mil.mil import types

    weight = normal(64, 96)
    codes, scale, _ = coremltools_utils.compute_qparams_by_dtype(weight, types.int4, "LINEAR_SYMMETRIC", [1, 32])
    ours = cp.quantize(weight, dtype="int4", granularity="per_block")
    np.testing.assert_array_equal(ours.codes(), codes)
    np.testing.assert_array_equal(ours.scale, scale)


def test_int4_is_packed_low_nibble_first():
    weight = np.array([[-7, 7, -1, 3, 0]], np.float32)
    tensor = cp.quantize(weight, dtype="int4")
    assert tensor.data.tobytes() == bytes([0x79, 0x3F, 0x00])
    assert tensor.codes().tolist() == [[-7, 7, -1, 3, 0]]
    assert tensor.dense().tolist() == weight.tolist()
    assert tensor.nbytes == 3 + 4
    linear = cp.quantize(np.ones((3, 4), np.float16), dtype="uint4", mode="linear")
    assert linear.nbytes == 6 + 3 * 2 + 2  # zero points are stored packed too


def test_int2_is_packed_four_codes_a_byte():
    tensor = cp.quantize(np.array([[-1, 1, 0, 1, -1]], np.float32), dtype="int2")
    assert tensor.data.tobytes() == bytes([0b01_00_01_11, 0b11])
    assert tensor.codes().tolist() == [[-1, 1, 0, 1, -1]]
    assert tensor.nbytes == 2 + 4
    unsigned = cp.quantize(np.array([[-1, 1, 0, 2]], np.float32), dtype="uint2", mode="linear")
    assert unsigned.data.tobytes() == bytes([0b11_01_10_00])
    assert unsigned.nbytes == 1 + 4 + 1


def squared_error_of(weight: np.ndarray, **options: object) -> float:
    return cp.error(weight, cp.quantize(weight, **options)).sse


@pytest.mark.parametrize("shape", [(6, 64), (2, 32, 4), (3, 300), (5, 7), (4, 1)])
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_searched_scales_have_the_bits_of_the_reference(name, weight_dtype, shape):
    weight = draw(name, int(np.prod(shape)), weight_dtype).reshape(shape)
    block_size = (1, 32, 1) if len(shape) == 3 else (1, 32 if shape[1] % 32 == 0 else 0)
    for dtype, mode in ENCODINGS:
        options = {"dtype": dtype, "mode": mode, "granularity": "per_block", "block_size": block_size}
        tensor = cp.quantize(weight, scale_search="mse", **options)
        check_grid(weight, tensor, dtype, mode, search=True)
        assert cp.error(weight, tensor).sse <= squared_error_of(weight, **options)


@pytest.mark.parametrize("name", HAZARDS)
@pytest.mark.parametrize("weight_dtype", DTYPES)
def test_searched_scales_of_hazards(simd_level, name, weight_dtype):
    weight = np.array([HAZARDS[name]], weight_dtype)
    for dtype, mode in ENCODINGS:
        tensor = cp.quantize(weight, dtype=dtype, mode=mode, scale_search="mse")
        check_grid(weight, tensor, dtype, mode, search=True)
        assert np.isfinite(tensor.dense()).all()
        assert cp.error(weight, tensor).sse <= squared_error_of(weight, dtype=dtype, mode=mode)


@pytest.mark.parametrize("block_size", [(0, 0), (40, 1), (1, 0), (0, 1)])
def test_searched_scales_of_large_blocks(block_size):
    weight = draw("t3", 400 * 500, np.float16).reshape(400, 500)
    for dtype, mode in (("int4", "linear_symmetric"), ("uint4", "linear")):
        options = {"dtype": dtype, "mode": mode, "granularity": "per_block", "block_size": block_size}
        assert squared_error_of(weight, scale_search="mse", **options) < 0.95 * squared_error_of(weight, **options)


@pytest.mark.parametrize("name", ["gaussian", "t6"])
def test_the_search_gains_what_it_promises(name):
    rng = np.random.default_rng(5)
    drawn = rng.standard_normal((1000, 320)) if name == "gaussian" else rng.standard_t(6, (1000, 320))
    weight = (0.02 * drawn).astype(np.float16)
    for mode, most in (("linear_symmetric", 0.802), ("linear", 0.918)):
        options = {"dtype": "int4", "mode": mode, "granularity": "per_block"}
        gain = squared_error_of(weight, scale_search="mse", **options) / squared_error_of(weight, **options)
        assert gain < most


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "last axis 100 is not a multiple of block_size 32 (shape (64, 100))"),
        ({"channel_axis": 1, "block_size": 30}, "axis 0 of length 64 is not a multiple of block_size 30"),
        ({"block_size": (1, 2, 3)}, "block_size (1, 2, 3) must have one entry per axis (shape (64, 100))"),
        ({"block_size": (-1, 2)}, "block_size must have one entry per axis, none negative, not (-1, 2)"),
        ({"block_size": 0}, "block_size must be at least 1, not 0"),
        ({"block_size": 3.5}, "block_size must be a whole number or one per axis, not 3.5"),
        ({"block_size": 4, "channel_axis": 2}, "channel_axis 2 is not an axis of shape (64, 100)"),
        ({"scale_search": "best"}, "scale_search must be None, 'mse', not 'best'"),
    ],
)
def test_wrong_blocks_are_refused(options, message):
    kind = cp.IndivisibleError if "not a multiple" in message else ValueError
    with pytest.raises(kind, match=re.escape(f"quantize: {message}")):
        cp.quantize(normal(64, 100), granularity="per_block", **options)


def test_symmetric_float32_has_the_codes_of_coremltools(coremltools_utils):
    from coremltools.converters.mil.mil import types

    weight = normal(64, 50)
    codes, scale, _ = coremltools_utils.compute_qparams_by_dtype(weight, types.int8, "LINEAR_SYMMETRIC", [1, 0])
    ours = cp.quantize(weight)
    np.testing.assert_array_equal(ours.codes(), codes)
    np.testing.assert_array_equal(ours.scale, scale)


@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33])
def test_short_runs_of_any_length_on_every_level(length, mode, simd_level):
    weight = np.random.default_rng(length).standard_t(4, (3, 37 * length)).astype(np.float16)
    for shape in ((3, 37 * length), (3, 37, length), (37, 3, length)):
        of_shape = weight.reshape(shape)
        blocks = (1, length) if len(shape) == 2 else (1, 1, 0)
        tensor = cp.quantize(of_shape, dtype="int4", mode=mode, granularity="per_block", block_size=blocks)
        check_grid(of_shape, tensor, "int4", mode)


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 85, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize("rows", [1, 2, 8, 85, 257])
def test_few_columns_of_many_rows(rows, columns):
    weight = np.random.default_rng(rows).standard_t(4, (rows, columns)).astype(np.float32)
    tensor = cp.quantize(weight, dtype="int8", mode="linear", channel_axis=-1)
    check_grid(weight, tensor, "int8", "linear")
