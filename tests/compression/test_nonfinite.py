"""Infinities with table entries of their own, and what the other policies do."""

from __future__ import annotations

import math

import numpy as np
import pytest

import corepress as cp
from corepress import reference
from helpers.arrays import DTYPES, assert_same_bits, draw, normal, squared_error


def with_infinities(dtype: type, count: int, low: bool, high: bool) -> np.ndarray:
    weight = draw("t3", count, dtype)
    weight[:: count // 7] = -np.inf if low else weight[0]
    weight[3 :: count // 5] = np.inf if high else weight[3]
    return weight


@pytest.mark.parametrize(("low", "high"), [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("nbits", [2, 3, 4, 8])
@pytest.mark.parametrize("count", [50, 5000, 70_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_infinities_survive_and_the_rest_is_clustered_optimally(dtype, count, nbits, low, high):
    weight = with_infinities(dtype, count, low, high)
    finite = np.isfinite(weight.astype(np.float64))
    tensor = cp.palettize(weight, nbits=nbits, nonfinite="table")
    dense = tensor.dense()
    np.testing.assert_array_equal(dense[~finite], weight[~finite])
    assert np.isfinite(dense[finite].astype(np.float64)).all()
    table = tensor.lut.reshape(-1).astype(np.float64)
    assert (np.sort(table) == table).all()
    assert (table[0] == -math.inf) == low
    assert (table[-1] == math.inf) == high
    assert cp.error(weight, tensor).sse == pytest.approx(cp.error(weight[finite], dense[finite]).sse, rel=1e-12)
    _, centroids, _ = cp.kernels.kmeans1d(weight[finite].astype(np.float64), 2**nbits - low - high)
    least = squared_error(weight[finite], reference.round_to(centroids, dtype))
    assert squared_error(weight[finite], table[np.isfinite(table)]) <= least * (1 + 1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_infinities_it_changes_nothing(dtype):
    weight = draw("normal", 5000, dtype)
    first, second = cp.palettize(weight, nbits=3, nonfinite="table"), cp.palettize(weight, nbits=3)
    assert_same_bits(first.lut, second.lut)
    assert_same_bits(first.indices, second.indices)


def test_every_group_has_its_own():
    weight = normal(4, 300)
    weight[0, 5], weight[1, 7], weight[2, 8:10] = np.inf, -np.inf, [np.inf, -np.inf]
    tensor = cp.palettize(weight, nbits=2, granularity="per_grouped_channel", group_size=1, nonfinite="table")
    assert np.isinf(tensor.lut).sum(axis=(1, 2, 3)).tolist() == [1, 1, 2, 0]
    np.testing.assert_array_equal(np.isinf(tensor.dense()), np.isinf(weight))


@pytest.mark.parametrize("values", [[np.inf], [-np.inf], [np.inf, -np.inf], [-np.inf, 1.0], [1.0, np.inf, 2.0]])
@pytest.mark.parametrize("mode", ["kmeans", "unique", "uniform"])
def test_few_values_are_all_kept(mode, values):
    weight = np.tile(np.array(values, np.float16), 5)
    tensor = cp.palettize(weight, nbits=2, mode=mode, nonfinite="table")
    np.testing.assert_array_equal(tensor.dense(), weight)
    found = cp.error(weight, tensor)
    assert (found.sse, found.max_abs, found.snr_db) == (0, 0, math.inf)


def test_one_entry_between_two_infinities():
    weight = np.array([-np.inf, 1.0, 3.0], np.float32)
    assert cp.palettize(weight, nbits=1, nonfinite="table").lut.reshape(-1).tolist() == [-math.inf, 2.0]
    assert cp.palettize(weight, nbits=1, mode="uniform", nonfinite="table").dense().tolist() == [-math.inf, 2.0, 2.0]
    with pytest.raises(cp.NonFiniteError, match="palettize: nbits 1, a table of 2 entries has no entry left"):
        cp.palettize(np.append(weight, np.float32(np.inf)), nbits=1, nonfinite="table")
    both = np.array([-np.inf, np.inf], np.float32)
    assert cp.palettize(both, nbits=1, nonfinite="table").dense().tolist() == both.tolist()


def test_importance_of_the_finite_values_is_theirs():
    weight = np.array([np.inf, 0, 1, 2, 10, 11, np.inf], np.float32)
    importance = np.array([9, 1, 1, 4, 1, 3, 9], np.float32)
    tensor = cp.palettize(weight, nbits=2, nonfinite="table", importance=importance)
    finite = cp.kernels.kmeans1d(weight[1:6].astype(np.float64), 3, importance[1:6].astype(np.float64))[1]
    assert tensor.lut.reshape(-1).tolist() == [*np.float32(finite).tolist(), math.inf]


def test_nan_never_reaches_a_table():
    weight = normal(5, 5)
    weight[1, 1], weight[2, 2] = np.nan, np.inf
    with pytest.raises(cp.NonFiniteError, match=r"palettize: 1 of 25 values are NaN \(shape \(5, 5\)\)"):
        cp.palettize(weight, nbits=4, nonfinite="table")


def test_the_other_policies_refuse_arrays():
    weight = np.array([1.0, np.inf], np.float32)
    for policy in ("keep", "error"):
        for verb, options in ((cp.palettize, {"nbits": 4}), (cp.quantize, {}), (cp.prune, {"threshold": 0})):
            with pytest.raises(cp.NonFiniteError, match="1 of 2 values are NaN or infinite"):
                verb(weight, nonfinite=policy, **options)
    with pytest.raises(ValueError, match="quantize: nonfinite must be 'keep', 'error', not 'table'"):
        cp.quantize(weight, nonfinite="table")
    with pytest.raises(ValueError, match="palettize: nonfinite 'table' makes its own table; leave out lut"):
        cp.palettize(weight, lut=[0, 1], nonfinite="table")


def test_the_error_of_an_infinity_that_is_lost_is_infinite():
    weight = np.array([1.0, np.inf, -np.inf], np.float32)
    assert cp.error(weight, weight.copy()).sse == 0
    lost = cp.error(weight, np.array([1.0, 5.0, -np.inf], np.float32))
    assert (lost.sse, lost.max_abs, lost.snr_db) == (math.inf, math.inf, -math.inf)
    assert math.isnan(cp.error(weight, np.array([1.0, -np.inf, np.nan], np.float32)).sse)
