"""The error of a compressed tensor, against float64."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress import reference
from helpers.arrays import DRAWS, DTYPES, draw, normal


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_figures(name, dtype):
    weight = draw(name, 1001, dtype)
    tensor = cp.palettize(weight, nbits=2)
    squared, first, second, product, largest = reference.error_sums(weight, tensor.dense())
    found = cp.error(weight, tensor)
    assert found.sse == pytest.approx(squared, rel=1e-12)
    assert found.mse == pytest.approx(squared / weight.size, rel=1e-12)
    assert found.max_abs == largest
    assert found.snr_db == (math.inf if squared == 0 else pytest.approx(10 * math.log10(first / squared), rel=1e-9))
    cosine = product / math.sqrt(first) / math.sqrt(second) if first and second else float(first == second)
    assert found.cosine == pytest.approx(cosine, rel=1e-12)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 65_535, 65_536, 65_537, 200_001])
def test_every_size(simd_level, count):
    first, second = normal(count), normal(count, seed=1)
    difference = first.astype(np.float64) - second
    found = cp.error(first, second)
    assert found.sse == pytest.approx((difference**2).sum(), rel=1e-12)
    assert found.max_abs == np.abs(difference).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_identical_arrays(dtype):
    weight = normal(5, 9, dtype=dtype)
    found = cp.error(weight, weight.copy())
    assert (found.sse, found.mse, found.snr_db, found.max_abs) == (0, 0, math.inf, 0)
    assert found.cosine == pytest.approx(1, abs=1e-15)
    assert found.cosine <= 1


def test_zeros_and_nothing():
    zeros, ones = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert cp.error(zeros, zeros) == cp.Error(0, 0, math.inf, 0, 1)
    assert cp.error(zeros, ones) == cp.Error(4, 1, -math.inf, 1, 0)
    assert cp.error(ones, zeros) == cp.Error(4, 1, 0, 1, 0)
    assert cp.error(zeros[:0], ones[:0]) == cp.Error(0, 0, math.inf, 0, 1)


def test_opposite_vectors():
    weight = normal(100)
    assert cp.error(weight, -weight).cosine == pytest.approx(-1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_ends_of_the_range_do_not_overflow(dtype):
    largest = ml_dtypes.finfo(dtype).max
    found = cp.error(np.full(9, largest, dtype), np.full(9, -largest, dtype))
    assert found.max_abs == 2 * float(largest)
    assert found.sse == pytest.approx(36 * float(largest) ** 2)
    smallest = ml_dtypes.finfo(dtype).smallest_subnormal
    assert cp.error(np.full(9, smallest, dtype), np.zeros(9, dtype)).sse == pytest.approx(9 * float(smallest) ** 2)


@pytest.mark.parametrize("place", [0, 1, 7, 8, 15, 16, 63, 65_536])
def test_nan_is_seen_wherever_it_stands(simd_level, place):
    first, second = normal(70_000), normal(70_000, seed=1)
    first[place] = np.nan
    found = cp.error(first, second)
    assert math.isnan(found.sse)
    assert math.isnan(found.mse)
    assert math.isnan(found.snr_db)
    assert math.isnan(found.max_abs)
    assert math.isnan(found.cosine)


def test_infinite_values_do_not_raise():
    weight = np.array([1, 2, 3], np.float32)
    found = cp.error(weight, np.array([1, np.inf, 3], np.float32))
    assert (found.sse, found.snr_db, found.max_abs) == (math.inf, -math.inf, math.inf)


def test_shapes_and_dtypes_must_agree():
    with pytest.raises(ValueError, match=r"error: weight has shape \(2, 3\), tensor has \(6,\)"):
        cp.error(np.ones((2, 3), np.float32), np.ones(6, np.float32))
    with pytest.raises(TypeError, match="error: weight is float32, tensor is float16"):
        cp.error(np.ones(3, np.float32), np.ones(3, np.float16))


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 65_536, 70_001])
def test_a_palette_is_compared_without_its_dense_form(simd_level, size, num_threads):
    weight = normal(size, dtype=np.float16)
    tensor = cp.palettize(weight, nbits=3)
    assert cp.error(weight, tensor, num_threads=num_threads) == cp.error(weight, tensor.dense())


def test_a_grouped_palette_is_compared_without_its_dense_form():
    weight = normal(12, 8, 5)
    tensor = cp.palettize(weight, nbits=2, granularity="per_grouped_channel", group_size=2, channel_axis=1)
    assert cp.error(weight, tensor) == cp.error(weight, tensor.dense())
