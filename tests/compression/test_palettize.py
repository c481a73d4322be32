"""Scalar palettes: the tables are optimal, the codes are the nearest entries."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import corepress as cp
from corepress import reference
from helpers.arrays import DRAWS, DTYPES, PALETTE_BITS, assert_same_bits, draw, normal, squared_error

TOLERANCE = 1e-4
LARGE = ["normal", "t3", "lognormal", "outliers", "bimodal", "integers"]


def optimal_table(kmeans1d, values: np.ndarray, nbits: int) -> np.ndarray:
    """The exact solver's centroids for these values, rounded to their dtype."""
    distinct, counts = np.unique(values.astype(np.float64), return_counts=True)
    if distinct.size <= 2**nbits:
        return distinct.astype(values.dtype)
    found = kmeans1d.cluster(distinct - distinct.mean(), 2**nbits, weights=counts.astype(np.float64))
    return reference.round_to(np.sort(found.centroids) + distinct.mean(), values.dtype)


def check_group(values: np.ndarray, lut: np.ndarray, codes: np.ndarray) -> None:
    """What holds for every group, whatever its values."""
    assert lut.dtype == values.dtype
    assert (np.diff(lut.astype(np.float64)) >= 0).all()
    np.testing.assert_array_equal(codes, reference.assign(values, lut))
    used = int(codes.max())
    assert (lut[used:] == lut[used]).all()  # unused entries repeat the largest
    if np.unique(values).size <= lut.size:
        np.testing.assert_array_equal(lut[codes], values)


def check_optimal(kmeans1d, values: np.ndarray, nbits: int) -> None:
    tensor = cp.palettize(values, nbits=nbits)
    lut = tensor.lut.reshape(-1)
    check_group(values.reshape(-1), lut, tensor.codes().reshape(-1))
    least = squared_error(values, optimal_table(kmeans1d, values, nbits))
    assert squared_error(values, lut) <= least * (1 + TOLERANCE)


@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_optimal_for_every_kind_of_weight(kmeans1d, name, dtype, nbits):
    check_optimal(kmeans1d, draw(name, 2500, dtype), nbits)


@pytest.mark.parametrize("nbits", [2, 4, 8])
@pytest.mark.parametrize("name", LARGE)
def test_optimal_from_the_histogram_of_halves(kmeans1d, name, nbits):
    check_optimal(kmeans1d, draw(name, 40_000, np.float16), nbits)


@pytest.mark.parametrize("nbits", [1, 3, 6])
@pytest.mark.parametrize("name", LARGE)
def test_optimal_from_buckets_of_floats(kmeans1d, name, nbits):
    check_optimal(kmeans1d, draw(name, 20_000, np.float32), nbits)


@pytest.mark.parametrize(
    ("name", "count", "nbits"), [("normal", 300_000, 2), ("outliers", 300_000, 4), ("t3", 150_000, 4)]
)
def test_optimal_for_large_floats(kmeans1d, name, count, nbits):
    check_optimal(kmeans1d, draw(name, count, np.float32), nbits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [16_383, 16_384, 16_385, 4095, 4096, 4097, 65_535, 65_536, 65_537])
def test_optimal_on_both_sides_of_every_change_of_method(kmeans1d, dtype, count):
    check_optimal(kmeans1d, draw("laplace", count, dtype), 2)


@pytest.mark.parametrize("nbits", [3, 4])
@pytest.mark.parametrize("count", [3000, 20_000])
@pytest.mark.parametrize(
    "far", [[1e6], [1e12, -1e12], [1e30], [1e30, -2e30, 3e30], [1e20, 1.0001e20, -1e10, 1e15], [3.4e38, 1e38]]
)
def test_far_values_cost_an_entry_each_and_no_more(kmeans1d, far, count, nbits):
    near = draw("normal", count, np.float32)
    values = np.append(near, np.array(far, np.float32))
    tensor = cp.palettize(values, nbits=nbits)
    lut = tensor.lut.reshape(-1)
    check_group(values, lut, tensor.codes())
    distinct, counts = np.unique(near.astype(np.float64), return_counts=True)
    centroids = kmeans1d.cluster(distinct, 2**nbits - len(far), weights=counts.astype(np.float64)).centroids
    np.testing.assert_array_equal(tensor.dense()[count:], values[count:])
    assert squared_error(near, lut) <= squared_error(near, np.array(centroids, np.float32)) * (1 + TOLERANCE)


@pytest.mark.parametrize("nbits", [4, 6])
def test_optimal_for_trained_weights(kmeans1d, trained_weights, nbits):
    for tensor in (trained_weights[0], trained_weights[4], trained_weights[8]):
        check_optimal(kmeans1d, tensor[:200_000], nbits)
        check_optimal(kmeans1d, tensor[:30_000].astype(np.float32), nbits)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "group_size"), [((12, 6, 5), 2), ((8, 4, 3, 3), 4), ((7, 40), 1), ((3, 2, 130), 2)])
def test_each_group_is_a_tensor_of_its_own(dtype, shape, group_size):
    weight = normal(*shape, dtype=dtype)
    for axis, channels in enumerate(shape):
        if channels % group_size:
            continue
        tensor = cp.palettize(
            weight, nbits=3, granularity="per_grouped_channel", group_size=group_size, channel_axis=axis
        )
        groups = channels // group_size
        counts = [groups if position == axis else 1 for position in range(weight.ndim)]
        assert tensor.lut.shape == (*counts, 8, 1)
        parts = zip(
            np.split(weight, groups, axis),
            np.split(tensor.codes(), groups, axis),
            tensor.lut.reshape(-1, 8),
            strict=True,
        )
        for part, codes, lut in parts:
            assert_same_bits(lut, cp.palettize(part, nbits=3).lut.reshape(-1))
            check_group(part, lut, codes)


@pytest.mark.parametrize("shape", [(64, 4096), (2, 65_536, 2), (4096, 64)])
def test_large_groups_on_every_axis(kmeans1d, shape):
    weight = draw("laplace", int(np.prod(shape)), np.float32).reshape(shape)
    for axis, channels in enumerate(shape):
        tensor = cp.palettize(
            weight, nbits=2, granularity="per_grouped_channel", group_size=channels // 2, channel_axis=axis
        )
        for part, codes, lut in zip(
            np.split(weight, 2, axis), np.split(tensor.codes(), 2, axis), tensor.lut.reshape(2, 4), strict=True
        ):
            check_group(part, lut, codes)
            least = squared_error(part, optimal_table(kmeans1d, part.reshape(-1)[:4000], 2))
            assert squared_error(part, lut) <= least


def test_negative_channel_axis_counts_from_the_end():
    weight = normal(4, 6)
    options = {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 3}
    first = cp.palettize(weight, channel_axis=-1, **options)
    assert_same_bits(first.lut, cp.palettize(weight, channel_axis=1, **options).lut)
    assert first.lut.shape == (1, 2, 4, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nbits", PALETTE_BITS)
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_lossless_up_to_as_many_values_as_entries(dtype, nbits, excess):
    pool = np.unique(normal(3000, dtype=dtype))
    distinct = pool[:: pool.size // (2**nbits + excess)][: 2**nbits + excess]
    values = np.random.default_rng(0).permutation(np.repeat(distinct, 3))
    tensor = cp.palettize(values, nbits=nbits)
    assert np.array_equal(tensor.dense(), values) == (excess <= 0)
    expected = np.append(distinct, np.repeat(distinct[-1:], max(-excess, 0)))
    if excess <= 0:
        assert_same_bits(tensor.lut.reshape(-1), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_neighbouring_numbers_keep_entries_of_their_own(dtype):
    for first in (1.0, -1.0, 0.0, 2.0**-24, 60_000.0):
        second = np.nextafter(dtype(first), dtype(np.inf))
        values = np.array([first, second, first], dtype)
        assert_same_bits(cp.palettize(values, nbits=1).dense(), values)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equally_near_entries_give_the_lower(dtype):
    values = np.repeat(np.array([0, 2, 1], dtype), [4, 4, 1])
    tensor = cp.palettize(np.append(values, np.array([-8, 8], dtype)), nbits=2)
    lut = tensor.lut.reshape(-1)
    assert lut.tolist() in ([-8, 0, 2, 8], [-8, dtype(0.2), 2, 8], [-8, 0, dtype(1.8), 8])
    check_group(np.append(values, np.array([-8, 8], dtype)), lut, tensor.codes())


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_has_one_sign(dtype):
    tensor = cp.palettize(np.array([-0.0, 0.0, -0.0, 1.0], dtype), nbits=1)
    assert_same_bits(tensor.lut.reshape(-1), np.array([0.0, 1.0], dtype))
    assert tensor.codes().tolist() == [0, 0, 0, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_whole_range_of_the_format(dtype):
    largest = ml_dtypes.finfo(dtype).max
    values = np.array([-largest, largest, 0, largest, ml_dtypes.finfo(dtype).smallest_subnormal], dtype)
    assert_same_bits(cp.palettize(values, nbits=2).dense(), values)
    with np.errstate(over="raise"):
        table = cp.palettize(np.repeat(values, 3), nbits=1).lut.reshape(-1)
    assert np.isfinite(table).all()
