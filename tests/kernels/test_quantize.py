"""Affine quantization: the bits of the reference, and never worse than coremltools."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_helpers import DRAWS, DTYPES, assert_same_bits, draw, normal

import corepress as cp
from corepress import reference

ENCODINGS = list(itertools.product(["int8", "uint8"], ["linear_symmetric", "linear"]))
RANGES = {
    ("int8", "linear_symmetric"): (-127, 127),
    ("int8", "linear"): (-128, 127),
    ("uint8", "linear_symmetric"): (0, 254),
    ("uint8", "linear"): (0, 255),
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
    assert (tensor.zero_point is None) == (symmetric and dtype == "int8")
    scales = tensor.scale.reshape(-1)
    offsets = np.zeros(scales.size, dtype) if tensor.zero_point is None else tensor.zero_point.reshape(-1)
    assert offsets.dtype == dtype
    parts = [
        [array] if axis is None else np.moveaxis(array, axis, 0) for array in (weight, tensor.codes(), tensor.dense())
    ]
    for part, part_codes, part_dense, scale, offset in zip(*parts, scales, offsets, strict=True):
        codes, expected_scale, zero_point = reference.quantize(part, code_range, symmetric)
        assert scale == expected_scale
        assert offset == zero_point
        np.testing.assert_array_equal(part_codes, codes)
        assert_same_bits(part_dense, reference.dequantize(codes, expected_scale, zero_point))


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
    slack = 128 * max(span / (highest - lowest) - scale, 0) + np.abs(exact).max() * np.finfo(weight_dtype).eps
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
@pytest.mark.parametrize("weight_dtype", DTYPES)
@pytest.mark.parametrize(("dtype", "mode"), ENCODINGS)
def test_error_is_never_above_that_of_coremltools(coremltools_utils, dtype, mode, weight_dtype, axis):
    from coremltools.converters.mil.mil import types

    builtin = {"int8": types.int8, "uint8": types.uint8}[dtype]
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


def test_symmetric_float32_has_the_codes_of_coremltools(coremltools_utils):
    from coremltools.converters.mil.mil import types

    weight = normal(64, 50)
    codes, scale, _ = coremltools_utils.compute_qparams_by_dtype(weight, types.int8, "LINEAR_SYMMETRIC", [1, 0])
    ours = cp.quantize(weight)
    np.testing.assert_array_equal(ours.codes(), codes)
    np.testing.assert_array_equal(ours.scale, scale)
