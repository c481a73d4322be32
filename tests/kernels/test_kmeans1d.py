"""Exact clustering of numbers, against a dynamic program in rational arithmetic."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corepress import _core, kernels, reference

NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, width=32),
    st.integers(-8, 8).map(float),
    st.sampled_from([0.0, -0.0, 0.5, 1.0, 1e-30, -1e-30, 1e15]),
)
WEIGHTS = st.one_of(st.integers(1, 9).map(float), st.floats(0.001, 1000), st.just(0.0))


def check(values, k, weights=None):
    codes, centroids, inertia = kernels.kmeans1d(values, k, weights)
    values = np.asarray(values, np.float64)
    _, least = reference.kmeans1d(values.tolist(), k, weights)
    importance = np.ones_like(values) if weights is None else np.asarray(weights)
    distinct = np.unique(values[importance > 0])
    # Clusters that only rounding could tell apart may be one.
    close = distinct.size > 1 and np.diff(distinct).min() < 1e-12 * np.ptp(distinct)
    assert len(centroids) <= min(k, distinct.size) if close else len(centroids) == min(k, distinct.size)
    assert (np.diff(centroids) > 0).all()
    own = float((importance * (values - centroids[codes]) ** 2).sum())
    rounding = 1e-13 * float((importance * np.square(np.spacing(np.abs(values).max()) + values - values.mean())).sum())
    assert inertia == pytest.approx(own, rel=1e-9)
    assert own <= least * (1 + 1e-6) + rounding
    distances = np.abs(values[:, None] - centroids)
    nearest = distances[np.arange(values.size), codes]
    np.testing.assert_array_less(nearest, distances.min(axis=1) * (1 + 1e-12) + 1e-300)


@settings(deadline=None, derandomize=True, max_examples=250)
@given(st.lists(NUMBERS, min_size=1, max_size=14), st.integers(1, 6))
@example([0.0, 1.0, 2.0, 3.0], 2)
@example([1.0, 1.0, 1.0], 2)
@example([-1.0, 0.0, 1.0], 2)
@example([0.0, 1e-30, 2.359654051724866e-25, 1.0, 2.0, 7.0], 5)
def test_least_possible_inertia(values, k):
    check(values, k)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.tuples(NUMBERS, WEIGHTS), min_size=1, max_size=12), st.integers(1, 5))
@example([(0.0, 1.0), (1.0, 1e-9), (10.0, 1e9), (11.0, 1.0)], 2)
@example([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.5, 1.0), (1e-30, 1.0), (-1e-30, 1.0)], 5)
def test_least_possible_weighted_inertia(pairs, k):
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    if any(weights):
        check(values, k, weights)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9, 16])
def test_same_inertia_as_the_exact_solver_of_coremltools(kmeans1d, k):
    values = np.random.default_rng(k).standard_t(3, 700)
    _, centroids, inertia = kernels.kmeans1d(values, k)
    found = kmeans1d.cluster(values, k)
    expected = ((values - np.array(found.centroids)[found.clusters]) ** 2).sum()
    assert inertia == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(centroids, np.sort(found.centroids), rtol=1e-9)


def thousands(shape, weighted):
    rng = np.random.default_rng(len(shape))
    count = 2200
    values = {
        "normal": rng.standard_normal(count),
        "heavy": rng.standard_t(1.5, count),
        "clumps": rng.integers(0, 9, count) ** 2 + 1e-3 * rng.standard_normal(count),
        "even": np.arange(count) / 8,
        "modes": rng.choice([-40.0, 0, 1], count) + rng.choice([1e-3, 0.3, 9], count) * rng.standard_normal(count),
    }[shape]
    return values, rng.uniform(0.01, 5, count) if weighted else np.ones(count)


@functools.cache
def least_inertias(shape, weighted, most):
    """The least possible inertia for each number of clusters up to `most`, by a dynamic program in long doubles."""
    values, weights = thousands(shape, weighted)
    order = np.argsort(values)
    values, weights = values[order].astype(np.longdouble), weights[order].astype(np.longdouble)
    values -= np.average(values, weights=weights)
    mass, moment, square = (np.append(0, np.cumsum(weights * values**power)) for power in range(3))
    best = np.append(0, square[1:] - moment[1:] ** 2 / mass[1:])
    inertias = [best[-1]]
    for _ in range(most - 1):
        longer = best.copy()
        for end in range(2, len(best)):
            moments = moment[end] - moment[1:end]
            costs = square[end] - square[1:end] - moments**2 / (mass[end] - mass[1:end])
            longer[end] = min(best[end], (best[1:end] + costs).min())
        best = longer
        inertias.append(best[-1])
    return [float(inertia) for inertia in inertias]


# Few clusters have more cuts to come from than are looked at one by one, and cuts that are passed over. Heavy tails
# have links of few and of many points; clumps change the length of links at once; modes have buckets of all kinds.
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", ["normal", "heavy", "clumps", "even", "modes"])
def test_thousands_of_values_have_the_least_inertia_at_every_level(simd_level, shape, weighted):
    values, weights = thousands(shape, weighted)
    for k, least in enumerate(least_inertias(shape, weighted, 5), start=1):
        _, centroids, inertia = kernels.kmeans1d(values, k, weights)
        assert len(centroids) == k
        assert inertia == pytest.approx(least, rel=1e-8)


@pytest.mark.parametrize("k", [2, 3, 40, 256, 1200])
def test_every_level_finds_the_same_centroids(k):
    values = np.random.default_rng(k).standard_t(3, 6000)
    before, found = _core.simd_level(), set()
    for level in _core.simd_levels():
        _core.set_simd_level(level)
        found.add(kernels.kmeans1d(values, k)[1].tobytes())
    _core.set_simd_level(before)
    assert len(found) == 1


@pytest.mark.parametrize("k", [16, 64])
def test_many_values_cost_what_coremltools_finds(kmeans1d, k):
    values = np.random.default_rng(k).standard_t(4, 5000)
    _, _, inertia = kernels.kmeans1d(values, k)
    found = kmeans1d.cluster(values, k)
    expected = ((values - np.array(found.centroids)[found.clusters]) ** 2).sum()
    assert inertia == pytest.approx(expected, rel=1e-8)


def test_weights_are_repetitions():
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=40), rng.integers(1, 6, 40)
    _, once, inertia = kernels.kmeans1d(values, 5, counts)
    _, repeated, repeated_inertia = kernels.kmeans1d(np.repeat(values, counts), 5)
    np.testing.assert_allclose(once, repeated, rtol=1e-12)
    assert inertia == pytest.approx(repeated_inertia, rel=1e-12)


@pytest.mark.parametrize(("offset", "spread"), [(1e6, 1e-3), (-1e9, 1e-3), (1e12, 0.5), (2.0**40, 1.0)])
def test_huge_offset_and_tiny_spread(offset, spread):
    values = offset + spread * np.random.default_rng(0).integers(0, 40, 60)
    codes, centroids, inertia = kernels.kmeans1d(values, 4)
    _, least = reference.kmeans1d(values.tolist(), 4)
    assert inertia <= least * (1 + 1e-6) + values.size * np.spacing(abs(offset)) ** 2
    assert (np.diff(centroids) > 0).all()
    assert codes.max() == 3


def test_neighbouring_numbers_are_told_apart():
    first = np.nextafter(1.0, 2.0)
    values = [first, np.nextafter(first, 2.0)]  # their middle rounds to the upper one
    codes, centroids, inertia = kernels.kmeans1d(values, 2)
    assert centroids.tolist() == values
    assert codes.tolist() == [0, 1]
    assert inertia == 0


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_numbers_whose_squares_leave_the_range_of_doubles(scale):
    values = np.array([0.0, 1.0, 10.0, 11.0]) * scale
    codes, centroids, _ = kernels.kmeans1d(values, 2)
    assert codes.tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(centroids, [0.5 * scale, 10.5 * scale])


@pytest.mark.parametrize("far", [1e3, 1e6, 1e9, 1e12, 1e18, 1e30])
def test_far_values_get_centroids_of_their_own(far):
    values = np.concatenate([np.arange(10) * 1e-3, [far, -far]])
    codes, centroids, inertia = kernels.kmeans1d(values, 4)
    _, least = reference.kmeans1d(values.tolist(), 4)
    assert codes.tolist() == [1] * 5 + [2] * 5 + [3, 0]
    assert inertia == pytest.approx(least, rel=1e-6)
    assert (centroids[0], centroids[-1]) == (-far, far)


@pytest.mark.parametrize("count", [300, 1000])
def test_one_cluster_fewer_than_values(count):
    values = np.cumsum(np.random.default_rng(0).uniform(1, 2, count))
    _, centroids, inertia = kernels.kmeans1d(values, count - 1)
    assert len(centroids) == count - 1
    assert inertia == pytest.approx(np.diff(values).min() ** 2 / 2, rel=1e-6)


def test_more_clusters_than_values():
    codes, centroids, inertia = kernels.kmeans1d([3.0, 1.0, 3.0], 7)
    assert codes.tolist() == [1, 0, 1]
    assert centroids.tolist() == [1.0, 3.0]
    assert inertia == 0


def test_codes_are_bytes_up_to_256_clusters():
    values = np.arange(600.0)
    assert kernels.kmeans1d(values, 256)[0].dtype == np.uint8
    codes, centroids, _ = kernels.kmeans1d(values, 257)
    assert codes.dtype == np.int32
    assert codes.max() == len(centroids) - 1 == 256


def test_values_without_weight_take_part_only_in_the_codes():
    codes, centroids, inertia = kernels.kmeans1d([0.0, 100.0, 1.0, 9.0], 2, [1.0, 0.0, 1.0, 2.0])
    assert centroids.tolist() == [0.5, 9.0]
    assert codes.tolist() == [0, 1, 0, 1]
    assert inertia == 0.5


@pytest.mark.parametrize(
    ("values", "k", "weights", "message"),
    [
        ([], 2, None, "not empty"),
        ([[1.0, 2.0]] * 2, 0, None, "kmeans1d: "),
        ([1.0], 0, None, "k must be at least 1, not 0"),
        ([1.0, np.nan], 1, None, "finite"),
        ([1.0, np.inf], 1, None, "finite"),
        ([1.0, 2.0], 1, [1.0], "one per value"),
        ([1.0, 2.0], 1, [1.0, -1.0], "not negative"),
        ([1.0, 2.0], 1, [0.0, 0.0], "not all 0"),
        ([1.0, 2.0], 1, [np.nan, 1.0], "finite"),
    ],
)
def test_refuses(values, k, weights, message):
    with pytest.raises(ValueError, match=message):
        kernels.kmeans1d(values, k, weights)


def _cost(values, weights):
    total = sum(weights)
    mean = sum(a * b for a, b in zip(values, weights, strict=True)) / total
    return sum(b * (a - mean) ** 2 for a, b in zip(values, weights, strict=True))


@pytest.mark.parametrize("decades", [16, 22, 30, 60, 120])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_weights_of_a_wide_range(decades, k):
    for seed in range(8):
        rng = np.random.default_rng([seed, decades])
        values, weights = rng.standard_normal(25), 10.0 ** rng.uniform(-decades / 2, decades / 2, 25)
        codes = kernels.kmeans1d(values, k, weights).codes
        _, least = reference.kmeans1d(values.tolist(), k, weights.tolist())
        parts = [
            [(Fraction(v), Fraction(w)) for v, w in zip(values[codes == c], weights[codes == c], strict=True)]
            for c in range(k)
        ]
        own = float(sum(_cost(*zip(*part, strict=True)) for part in parts if part))
        assert own <= least * (1 + 1e-9)


def test_light_weights_among_many_values_count_a_little_more():
    rng = np.random.default_rng(0)
    values, weights = rng.standard_normal(40_000), rng.uniform(0.5, 1.5, 40_000)
    weights[::2] = 1e-40
    raised = np.maximum(weights, weights.sum() * 2.0**-48)
    found, expected = (kernels.kmeans1d(values, 64, each) for each in (weights, raised))
    np.testing.assert_array_equal(found.codes, expected.codes)
