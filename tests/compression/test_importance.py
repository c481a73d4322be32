"""Weighted squared errors: palettes and searched scales that care for some weights more than for others."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import corepress as cp
from corepress import reference
from helpers.arrays import DTYPES, arrays_of, draw, normal


def fisher(count: int, seed: int = 0) -> np.ndarray:
    """Squares of gradients: of many magnitudes, some of them zero."""
    rng = np.random.default_rng([7, seed, count])
    return (rng.standard_t(2, count) ** 2 * (rng.random(count) < 0.9)).astype(np.float32)


def weighted_error(weight: np.ndarray, importance: np.ndarray, decoded: np.ndarray) -> float:
    difference = weight.astype(np.float64) - decoded.astype(np.float64)
    return float((importance.astype(np.float64) * difference**2).sum())


def least_error(kmeans1d, weight: np.ndarray, importance: np.ndarray, k: int) -> float:
    """The error of the exact solver's centroids, rounded to the dtype."""
    distinct, inverse = np.unique(weight.astype(np.float64), return_inverse=True)
    sums = np.bincount(inverse, importance.astype(np.float64))
    keep = sums > 0
    centre = np.average(distinct[keep], weights=sums[keep])
    centroids = kmeans1d.cluster(distinct[keep] - centre, k, weights=sums[keep]).centroids
    table = np.unique(reference.round_to(np.sort(centroids) + centre, weight.dtype).astype(np.float64))
    exact = weight.astype(np.float64)
    codes = np.searchsorted((table[:-1] + table[1:]) / 2, exact)
    return weighted_error(weight, importance, table[codes])


@pytest.mark.parametrize("nbits", [1, 3, 6])
@pytest.mark.parametrize("count", [300, 4097, 40_000])
@pytest.mark.parametrize("name", ["normal", "t3", "bimodal", "outliers", "few distinct"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_weighted_error_is_the_least_possible(kmeans1d, dtype, name, count, nbits):
    weight, importance = draw(name, count, dtype), fisher(count)
    tensor = cp.palettize(weight, nbits=nbits, importance=importance)
    found = weighted_error(weight, importance, tensor.dense())
    if np.unique(weight.astype(np.float64)).size <= 2**nbits:
        assert found == 0
    else:
        assert found <= least_error(kmeans1d, weight, importance, 2**nbits) * (1 + 1e-4)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 9)), min_size=1, max_size=60))
def test_small_groups_against_exact_arithmetic(pairs):
    weight = np.array([value for value, _ in pairs], np.float32) / 8
    importance = np.array([count for _, count in pairs], np.float32)
    tensor = cp.palettize(weight, nbits=2, importance=importance)
    if importance.any():
        _, least = reference.kmeans1d(weight.tolist(), 4, importance.tolist())
        assert weighted_error(weight, importance, tensor.dense()) <= least * (1 + 1e-6) + 1e-9
    assert tensor.codes().tolist() == reference.assign(weight, tensor.lut.reshape(-1)).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_numbers_count_as_repetitions(dtype):
    weight = draw("normal", 6000, dtype)
    counts = np.random.default_rng(0).integers(0, 6, 6000)
    tensor = cp.palettize(weight, nbits=3, importance=counts.astype(np.float32))
    repeated = np.repeat(weight, counts)
    assert cp.error(repeated, cp.palettize(repeated, lut=tensor.lut.reshape(-1).astype(np.float64))).sse <= (
        cp.error(repeated, cp.palettize(repeated, nbits=3)).sse * (1 + 1e-4)
    )


@pytest.mark.parametrize("count", [50, 30_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_importance_changes_nothing_that_matters(dtype, count):
    weight = draw("laplace", count, dtype)
    plain = cp.error(weight, cp.palettize(weight, nbits=3)).sse
    for factor in (1e-30, 1.0, 1e30):
        weighted = cp.palettize(weight, nbits=3, importance=np.full(count, factor, np.float32))
        assert cp.error(weight, weighted).sse == pytest.approx(plain, rel=1e-4)


def test_groups_have_their_own_and_those_without_any_are_clustered_as_if_all_were_alike():
    weight, importance = normal(8, 700), fisher(5600).reshape(8, 700)
    importance[2:4] = 0
    options = {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 2}
    whole = cp.palettize(weight, importance=importance, **options)
    for group in range(4):
        rows = slice(2 * group, 2 * group + 2)
        given_importance = None if group == 1 else importance[rows]
        alone = cp.palettize(weight[rows], nbits=2, importance=given_importance)
        assert alone.lut.tobytes() == whole.lut[group].tobytes()


def test_any_float_dtype_and_stride_and_tiny_numbers():
    weight, importance = normal(40, 30), fisher(1200).reshape(40, 30)
    expected = cp.palettize(weight, nbits=3, importance=importance)
    for same in (np.asfortranarray(importance), importance.astype(np.float64), importance.astype(">f4")):
        assert cp.palettize(weight, nbits=3, importance=same).lut.tobytes() == expected.lut.tobytes()
    tiny = importance.astype(np.float64) * 2.0**-600
    assert cp.palettize(weight, nbits=3, importance=tiny).lut.tobytes() == expected.lut.tobytes()


def test_the_same_bytes_at_every_level_and_number_of_threads(simd_level):
    importance = fisher(1_100_000)
    for dtype in DTYPES:
        weight = draw("normal", 1_100_000, dtype)
        found = {
            b"".join(
                part.tobytes()
                for part in arrays_of(cp.palettize(weight, nbits=4, importance=importance, num_threads=threads))
            )
            for threads in (1, 3)
        }
        assert len(found) == 1


@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
@pytest.mark.parametrize("shape", [(6, 64), (2, 32, 4), (5, 7)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_searched_scales_lower_the_weighted_error(simd_level, dtype, shape, mode):
    weight, importance = normal(*shape, dtype=dtype), fisher(int(np.prod(shape))).reshape(shape)
    options = {"dtype": "int4", "mode": mode, "granularity": "per_block", "scale_search": "mse"}
    options["block_size"] = (1, 32, 1) if len(shape) == 3 else (1, 0)
    plain = cp.quantize(weight, **options)
    weighted = cp.quantize(weight, importance=importance, **options)
    unsearched = cp.quantize(weight, **{**options, "scale_search": None})
    found = weighted_error(weight, importance, weighted.dense())
    assert found <= weighted_error(weight, importance, unsearched.dense())
    assert found < weighted_error(weight, importance, plain.dense()) * 1.02
    assert weighted.scale.tobytes() != plain.scale.tobytes()


def test_whole_numbers_weigh_like_repetitions_in_searched_scales():
    weight = normal(1, 64)
    counts = np.arange(64) % 4
    options = {"dtype": "int4", "granularity": "per_tensor", "scale_search": "mse"}
    # The range is that of all weights, so one of importance 0 must not be the largest.
    counts[np.abs(weight[0]).argmax()] = 1
    weighted = cp.quantize(weight, importance=counts[None].astype(np.float16), **options)
    repeated = cp.quantize(np.repeat(weight[0], counts)[None], **options)
    # Candidates are ranked by sums of doubles and of floats.
    assert weighted.scale.item() == pytest.approx(repeated.scale.item(), rel=1e-6)


def test_blocks_without_importance_are_quantized_as_if_all_were_alike():
    weight, importance = normal(4, 64), np.zeros((4, 64), np.float32)
    importance[1] = fisher(64)
    options = {"dtype": "int4", "scale_search": "mse"}
    weighted, plain = cp.quantize(weight, importance=importance, **options), cp.quantize(weight, **options)
    assert (weighted.scale == plain.scale).reshape(-1).tolist()[::2] == [True, True]
    assert weighted.scale[3] == plain.scale[3]


def test_lists_take_a_list():
    weights = [normal(50), normal(70, dtype=np.float16), normal(9)]
    importances = [fisher(50), None, fisher(9)]
    for verb, options in ((cp.palettize, {"nbits": 2}), (cp.quantize, {"scale_search": "mse", "dtype": "int4"})):
        together = verb(weights, importance=importances, **options)
        for weight, importance, tensor in zip(weights, importances, together, strict=True):
            alone = verb(weight, importance=importance, **options)
            assert [part.tobytes() for part in arrays_of(alone)] == [part.tobytes() for part in arrays_of(tensor)]


WEIGHT = normal(6, 10)
WRONG = {
    "palettize: importance has shape (6, 9), the weight (6, 10)": lambda: cp.palettize(
        WEIGHT, nbits=2, importance=np.ones((6, 9), np.float32)
    ),
    "importance must be finite and not negative, not -1 to 1": lambda: cp.palettize(
        WEIGHT, nbits=2, importance=np.where(WEIGHT > 0, 1.0, -1.0)
    ),
    "importance must be finite and not negative, not 1 to inf": lambda: cp.palettize(
        WEIGHT, nbits=2, importance=np.where(WEIGHT > 0, 1.0, np.inf)
    ),
    "importance must be finite and not negative, not nan": lambda: cp.quantize(
        WEIGHT, scale_search="mse", importance=np.full((6, 10), np.nan)
    ),
    "palettize: importance is for mode 'kmeans' and no lut": lambda: cp.palettize(
        WEIGHT, nbits=2, mode="uniform", importance=np.ones((6, 10))
    ),
    "quantize: importance needs scale_search 'mse'": lambda: cp.quantize(WEIGHT, importance=np.ones((6, 10))),
    "palettize: importance must be a list of 2 entries, one per weight of the list, not 1": lambda: cp.palettize(
        [WEIGHT, WEIGHT], nbits=2, importance=[None]
    ),
    "quantize: importance must be a list of 2 entries, one per weight of the list, not ndarray": lambda: cp.quantize(
        [WEIGHT, WEIGHT], scale_search="mse", importance=np.ones((2, 6, 10))
    ),
    "palettize: weight 1 of the list: importance has shape (3,)": lambda: cp.palettize(
        [WEIGHT, WEIGHT], nbits=2, importance=[None, np.ones(3)]
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_importance(message):
    with pytest.raises(ValueError, match=re.escape(message)):
        WRONG[message]()


def test_importance_is_an_array_of_numbers():
    with pytest.raises(TypeError, match="palettize: importance must be numbers, not complex128; give its real"):
        cp.palettize(WEIGHT, nbits=2, importance=np.ones((6, 10), complex))
    counts = np.arange(60).reshape(6, 10)
    plain, whole = (cp.palettize(WEIGHT, nbits=2, importance=each) for each in (counts.astype(float), counts))
    assert whole.lut.tolist() == plain.lut.tolist()
