"""Magnitude pruning: exact comparisons, whatever the size and the format."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import _core, kernels, reference
from corepress.errors import TooFewZerosError
from helpers.arrays import DRAWS, DTYPES, assert_same_bits, draw, normal

SPARSITIES = [0.0, 1e-9, 0.1, 0.5, 0.75, 0.999, 1.0]


def check(weight: np.ndarray, tensor: cp.SparseTensor, threshold: float) -> None:
    mask = reference.magnitude_mask(weight, threshold)
    assert tensor.mask.tobytes() == reference.pack_bits(mask, 1).tobytes()
    assert_same_bits(tensor.values, reference.encode_sparse(weight, mask))
    assert_same_bits(tensor.dense(), reference.decode_sparse(weight[mask], mask))
    assert tensor.nnz == mask.sum()


@pytest.mark.parametrize("target_sparsity", SPARSITIES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DRAWS)
def test_target_sparsity(name, dtype, target_sparsity):
    weight = draw(name, 1003, dtype)
    tensor = cp.prune(weight, target_sparsity=target_sparsity)
    check(weight, tensor, reference.magnitude_of_sparsity(weight, target_sparsity))


@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 127, 129])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_size(simd_level, count, dtype):
    weight = normal(count, dtype=dtype)
    for target_sparsity in SPARSITIES:
        tensor = cp.prune(weight, target_sparsity=target_sparsity)
        check(weight, tensor, reference.magnitude_of_sparsity(weight, target_sparsity))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [65_504, 65_505, 131_073, 1_100_000])
def test_more_weights_than_a_half_can_count(dtype, count):
    weight = normal(count, dtype=dtype)
    for target_sparsity in (0.3, 0.75):
        tensor = cp.prune(weight, target_sparsity=target_sparsity)
        threshold = reference.magnitude_of_sparsity(weight, target_sparsity)
        kept = np.where(np.abs(weight) > threshold, weight, np.zeros_like(weight))
        np.testing.assert_array_equal(tensor.dense(), kept)
        assert tensor.sparsity == pytest.approx(target_sparsity, abs=0.01)


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64])
def test_a_sparsity_of_any_float_type(number):
    weight = normal(100_000)
    assert cp.prune(weight, target_sparsity=number(0.5)).nnz == cp.prune(weight, target_sparsity=0.5).nnz == 50_000


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_together(dtype):
    weight = np.array([1, -1, 1, 2, -1, 3], dtype)
    assert cp.prune(weight, target_sparsity=0.2).values.tolist() == [2, 3]
    equal = np.full(100, -0.5, dtype)
    assert cp.prune(equal, target_sparsity=0.01).nnz == 0
    assert cp.prune(equal, target_sparsity=0).nnz == 100


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_sparsity_only_encodes(dtype):
    weight = np.array([0.0, -0.0, ml_dtypes.finfo(dtype).smallest_subnormal, -1.0], dtype)
    tensor = cp.prune(weight, target_sparsity=0)
    assert_same_bits(tensor.values, weight[2:])
    assert_same_bits(tensor.dense(), np.where(weight == 0, dtype(0), weight))


@pytest.mark.parametrize("dtype", DTYPES)
def test_full_sparsity_zeroes_the_largest_number_too(dtype):
    weight = np.array([ml_dtypes.finfo(dtype).max, ml_dtypes.finfo(dtype).min, 1], dtype)
    assert cp.prune(weight, target_sparsity=1).nnz == 0
    assert cp.prune(weight, target_sparsity=1.0).dense().tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [0.1, 1.0, 2.0**-24, 2.0**-14, 2.0**-126, 2.0**-149, 1000.5])
def test_thresholds_between_two_numbers_of_the_format(simd_level, dtype, number):
    below, above = np.nextafter(dtype(number), dtype(0)), np.nextafter(dtype(number), dtype(np.inf))
    weight = np.array([below, number, above, -below, -number, -above, 0.0], dtype)
    exact = weight.astype(np.float64)
    for centre in np.unique(np.abs(exact)):
        for threshold in (np.nextafter(centre, -1), centre, np.nextafter(centre, np.inf)):
            if threshold >= 0:
                check(weight, cp.prune(weight, threshold=threshold), threshold)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.0, -0.0, 0, 1e-320, 1e-9, 65_519.0, 1e30, 1e300, np.inf])
def test_thresholds_at_the_ends_of_the_range(dtype, threshold):
    weight = np.array([0.0, -0.0, ml_dtypes.finfo(dtype).smallest_subnormal, -1.0, ml_dtypes.finfo(dtype).max], dtype)
    check(weight, cp.prune(weight, threshold=threshold), threshold)


@pytest.mark.parametrize("number", [np.float16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_threshold_of_any_number_type(number, dtype):
    weight = normal(500, dtype=dtype) * dtype(20)
    check(weight, cp.prune(weight, threshold=number(2)), 2.0)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.floats(-60_000, 60_000, width=16), max_size=70), st.floats(0, 1), st.sampled_from(DTYPES))
def test_any_weight_and_sparsity(values, target_sparsity, dtype):
    weight = np.array(values, dtype)
    tensor = cp.prune(weight, target_sparsity=target_sparsity)
    check(weight, tensor, reference.magnitude_of_sparsity(weight, target_sparsity))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 65_535, 65_536, 65_537, 200_001])
@pytest.mark.parametrize("density", [0.0, 0.03, 0.5, 1.0])
def test_sparse_form_and_back(simd_level, dtype, count, density):
    rng = np.random.default_rng(count)
    weight, mask = normal(count, dtype=dtype), rng.random(count) < density
    values = kernels.encode_sparse(weight, mask)
    assert_same_bits(values, weight[mask])
    expected = np.where(mask, weight, dtype(0))
    assert_same_bits(kernels.decode_sparse(values, mask, (count,)), expected)
    assert_same_bits(kernels.decode_sparse(values, kernels.pack_mask(mask), (count,)), expected)


def test_magnitude_mask_has_the_shape_of_the_weight():
    weight = normal(3, 5, 7)
    mask = kernels.magnitude_mask(weight, 0.05)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, reference.magnitude_mask(weight, 0.05))


def test_sparse_values_and_mask_must_fit():
    with pytest.raises(ValueError, match="values"):
        kernels.decode_sparse(np.ones(2, np.float32), np.array([True, False]), (2,))
    with pytest.raises(ValueError, match=r"encode_sparse: mask must be bool \(2,\) or 1 packed bytes"):
        kernels.encode_sparse(np.ones(2, np.float32), np.array([True]))


LARGE = (1 << 20) + 7  # from 2**20 on, a sample tells where to look
LARGE_DRAWS = {
    "normal": lambda rng: rng.standard_normal(LARGE),
    "constant": lambda rng: np.full(LARGE, 0.3),
    "all zero": lambda rng: np.zeros(LARGE),
    "few distinct": lambda rng: rng.choice([-1, 0, 0.5, 2], LARGE),
    "sorted": lambda rng: np.sort(rng.standard_normal(LARGE)),
    "one column": lambda rng: np.where(np.arange(LARGE) % 64 == 0, 5.0, rng.standard_normal(LARGE)),
    "runs": lambda rng: np.repeat(rng.standard_normal(LARGE // 8192 + 1), 8192)[:LARGE],
}


@pytest.mark.parametrize("name", LARGE_DRAWS)
def test_the_magnitude_of_a_rank_among_many(name):
    weight = LARGE_DRAWS[name](np.random.default_rng(0)).astype(np.float16)
    magnitudes = np.sort(np.abs(weight))
    for rank in (0, 1, 1000, LARGE // 2, LARGE - 1000, LARGE - 2, LARGE - 1):
        for threads in (1, 3):
            ((mask, values, _, _),) = _core.prune([weight], [("rank", rank)], False, threads)
            keep = np.abs(weight) > magnitudes[rank]
            assert mask.tobytes() == np.packbits(keep, bitorder="little").tobytes()
            assert_same_bits(values, weight[keep])


def _unlike_its_sample(dtype) -> np.ndarray:
    """Ones, but zeros at the 2**12 places that are looked at first."""
    drawn = np.arange(1 << 12, dtype=np.uint64)
    stride = np.uint64(LARGE >> 12)
    weight = np.ones(LARGE, dtype)
    weight[drawn * stride + ((drawn * np.uint64(2654435769) % np.uint64(1 << 32)) * stride >> np.uint64(32))] = 0
    return weight


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_threshold_among_many(dtype):
    weights = [each(np.random.default_rng(0)).astype(dtype) for each in LARGE_DRAWS.values()]
    weights += [_unlike_its_sample(dtype), normal(100, dtype=dtype), 1 - _unlike_its_sample(dtype)]
    for tensor, weight in zip(cp.prune(weights, threshold=0.4, num_threads=3), weights, strict=True):
        check(weight, tensor, 0.4)
        assert tensor.values.flags.owndata
    weights[-3][0] = np.nan
    with pytest.raises(cp.NonFiniteError, match=rf"1 of {LARGE} values are NaN"):
        cp.prune(weights[-3], threshold=0.4)


@pytest.mark.parametrize("dtype", DTYPES)
def test_too_few_zeros_for_it_to_be_worth_it(dtype):
    weight = np.arange(8, dtype=np.float32).astype(dtype)
    for least in (0.0, 0.25, 0.375):
        tensor = cp.prune(weight, threshold=2, minimum_sparsity_percentile=least)
        assert tensor.dense().tolist() == [0, 0, 0, 3, 4, 5, 6, 7]
    message = (
        r"prune: weight 1 of the list: 3 of 8 values become zero, less than minimum_sparsity_percentile 0\.376 "
        r"\(shape \(8,\)\)"
    )
    with pytest.raises(TooFewZerosError, match=message):
        cp.prune([weight[:3], weight], threshold=2, minimum_sparsity_percentile=0.376)
    assert cp.prune(weight[:0], threshold=2, minimum_sparsity_percentile=1).dense().size == 0


def test_the_least_sparsity_belongs_to_a_threshold():
    for options, message in [
        ({"target_sparsity": 0.5, "minimum_sparsity_percentile": 0.5}, "minimum_sparsity_percentile needs threshold"),
        ({"threshold": 1, "minimum_sparsity_percentile": 1.01}, "must be between 0 and 1, not 1.01"),
        ({"threshold": 1, "minimum_sparsity_percentile": float("nan")}, "must be between 0 and 1, not nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            cp.prune(np.ones(4, np.float32), **options)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 63, 64, 1023, 65_536, 149_999])
def test_values_that_are_not_finite_are_counted_wherever_they_stand(bad, place):
    weight = np.random.default_rng(0).standard_normal((1000, 150)).astype(np.float16)
    weight.reshape(-1)[place] = bad
    rules = ({"threshold": 0.5}, {"target_sparsity": 0.5}, {"n_m_ratio": (2, 5)}, {"n_m_ratio": (2, 7)})
    for rule in (*rules, {"target_sparsity": 0.5, "block_size": 4}):
        with pytest.raises(cp.NonFiniteError, match=r"prune: 1 of 150000 values are NaN or infinite"):
            cp.prune(weight, **rule)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [1, 8, 65_535, 65_536, 65_537, 200_001])
def test_survivors_of_all_pieces_stand_in_order(count, threads):
    weight = np.arange(1, count + 1, dtype=np.float32)
    weight[::3] = 0
    tensor = cp.prune(weight, threshold=1.5, num_threads=threads)
    np.testing.assert_array_equal(tensor.values, weight[weight > 1.5])
    assert tensor.values.flags.owndata
