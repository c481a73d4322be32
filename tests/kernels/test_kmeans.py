"""k-means of vectors, for tools that build formats of their own."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corepress import kernels, reference
from helpers.arrays import DTYPES, assert_same_bits, normal


def check(vectors: np.ndarray, k: int, weights: np.ndarray | None = None) -> float:
    codes, centroids, inertia = kernels.kmeans(vectors, k, weights)
    assert codes.shape == vectors.shape[:1]
    assert codes.dtype == (np.uint8 if k <= 256 else np.int32)
    assert (centroids.dtype, centroids.shape) == (np.float32, (k, vectors.shape[1]))
    order = [tuple(centroid) for centroid in centroids.tolist()]
    assert order == sorted(order)
    np.testing.assert_array_equal(codes, reference.assign_vectors(vectors, centroids))
    squares = ((vectors.astype(np.float64) - centroids[codes]) ** 2).sum(axis=1)
    expected = float((squares if weights is None else weights * squares).sum())
    assert inertia == pytest.approx(expected, rel=1e-5, abs=1e-12 * float((vectors.astype(np.float64) ** 2).sum()))
    return inertia


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 13])
@pytest.mark.parametrize("k", [1, 2, 16, 300])
def test_codes_centroids_and_inertia_belong_together(simd_level, k, length, dtype):
    check(normal(3000, length, dtype=dtype), k)


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 130), length=st.integers(1, 6), k=st.integers(1, 40), steps=st.integers(1, 50))
def test_any_number_of_vectors(count, length, k, steps):
    rng = np.random.default_rng([count, length, k, steps])
    vectors = (rng.integers(0, steps, (count, length)) / 4).astype(np.float32)
    inertia = check(vectors, k)
    if len(np.unique(vectors, axis=0)) <= k:
        assert inertia == 0


def test_one_cluster_is_the_mean():
    vectors = normal(1000, 3)
    _, centroids, inertia = kernels.kmeans(vectors, 1)
    np.testing.assert_allclose(centroids[0], vectors.mean(axis=0), atol=1e-6)
    assert inertia == pytest.approx(1000 * vectors.astype(float).var(axis=0).sum(), rel=1e-5)


def test_separate_clusters_are_found():
    rng = np.random.default_rng(1)
    centres = rng.uniform(-100, 100, (20, 3))
    labels = rng.integers(0, 20, 5000)
    vectors = centres[labels] + rng.normal(0, 0.01, (5000, 3))
    codes, _, _ = kernels.kmeans(vectors, 20)
    assert len({(int(code), int(label)) for code, label in zip(codes, labels, strict=True)}) == 20


@pytest.mark.parametrize("count", [3000, 200_000])
def test_weights_stand_for_repetitions(count):
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(count, 2)).astype(np.float32)
    weights = rng.integers(0, 5, count)
    inertia = check(vectors[:3000], 8, weights[:3000]) if count == 3000 else kernels.kmeans(vectors, 8, weights)[2]
    _, _, repeated = kernels.kmeans(np.repeat(vectors, weights, axis=0), 8)
    assert inertia == pytest.approx(repeated, rel=0.03)


def test_vectors_of_weight_0_do_not_move_centroids():
    vectors, weights = normal(400, 2), np.ones(400)
    vectors[::2] += 50
    weights[::2] = 0
    _, centroids, _ = kernels.kmeans(vectors, 1, weights)
    np.testing.assert_allclose(centroids[0], vectors[1::2].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("exponent", [-200, 200])
def test_the_scale_of_weights_goes_into_the_inertia_alone(exponent):
    vectors, weights = normal(500, 2), np.random.default_rng(3).random(500)
    codes, centroids, inertia = kernels.kmeans(vectors, 5, weights)
    scaled = kernels.kmeans(vectors, 5, weights * 2.0**exponent)
    assert_same_bits(scaled[0], codes)
    assert_same_bits(scaled[1], centroids)
    assert scaled[2] == inertia * 2.0**exponent


def _plain_lloyd(vectors: np.ndarray, k: int, seed: int) -> float:
    """The squared error of Lloyd's rounds from one greedy k-means++ start."""
    rng = np.random.default_rng(seed)
    entries = [vectors[rng.integers(len(vectors))]]
    nearest = ((vectors - entries[0]) ** 2).sum(axis=1)
    while len(entries) < k:
        tried = rng.choice(len(vectors), 2 + int(np.log(k)), p=nearest / nearest.sum())
        left = np.minimum(nearest, ((vectors[tried][:, None] - vectors) ** 2).sum(axis=-1))
        best = int(left.sum(axis=1).argmin())
        entries.append(vectors[tried[best]])
        nearest = left[best]
    table, before = np.array(entries), np.inf
    while True:
        error = float(reference.vector_distances(vectors, table).min(axis=1).sum(dtype=np.float64))
        if error >= before * (1 - 1e-9):
            return error
        table, before = reference.lloyd_step(vectors, table).astype(np.float32), error


def _drawn(kind: str, count: int, length: int) -> np.ndarray:
    rng = np.random.default_rng([count, length])
    drawn = {
        "normal": lambda: rng.standard_normal((count, length)),
        "uniform": lambda: rng.uniform(-1, 1, (count, length)),
        "clustered": lambda: rng.integers(-3, 4, (count, length)) + 0.05 * rng.standard_normal((count, length)),
        "heavy tails": lambda: rng.standard_t(2, (count, length)),
    }[kind]()
    return drawn.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "uniform", "clustered", "heavy tails"])
@pytest.mark.parametrize(("count", "k"), [(70, 64), (100, 64), (200, 64), (500, 64), (60, 16), (400, 16)])
@pytest.mark.parametrize("length", [2, 4, 8, 16])
def test_few_vectors_per_entry_are_clustered_as_well_as_by_plain_rounds(kind, count, k, length):
    vectors = _drawn(kind, count, length)
    plain = np.mean([_plain_lloyd(vectors, k, seed) for seed in range(4)])
    assert check(vectors, k) <= plain * 1.01
    assert len(np.unique(kernels.kmeans(vectors, k)[0])) == k


def test_more_entries_give_less_error():
    vectors = _drawn("normal", 150, 8)
    errors = [check(vectors, k) for k in (16, 32, 64, 96, 128, 140, 149, 150)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0


@pytest.mark.parametrize("weighted", [False, True])
def test_no_entry_is_unused_while_vectors_differ(weighted):
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.standard_normal((40, 6)), rng.integers(1, 30, 40), axis=0).astype(np.float32)
    weights = rng.uniform(0.1, 10, len(vectors)) if weighted else None
    for k in (8, 16, 32, 39, 40):
        codes, _, inertia = kernels.kmeans(vectors, k, weights)
        assert len(np.unique(codes)) == k
        assert k < 40 or inertia == 0


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ((np.ones(3), 2), "kmeans: vectors must be 2-D and not empty, not shape (3,)"),
        ((np.ones((0, 3)), 2), "not shape (0, 3)"),
        ((np.ones((3, 2)), 0), "kmeans: k must be from 1 to 65536, not 0"),
        ((np.ones((3, 2)), 65_537), "not 65537"),
        (([[1.0, np.nan]], 1), "kmeans: 1 of 2 values are NaN or infinite"),
        ((np.ones((3, 2)), 2, [1, 2]), "kmeans: weights must have shape (3,), not (2,)"),
        ((np.ones((3, 2)), 2, [1, -2, 1]), "kmeans: weights must be finite, not negative and not all 0"),
        ((np.ones((3, 2)), 2, [0, 0, 0]), "not all 0"),
        ((np.ones((3, 2)), 2, [1, np.inf, 1]), "must be finite"),
        ((np.ones((3, 2)), 2, [1, np.nan, 1]), "must be finite"),
    ],
)
def test_wrong_arguments_are_refused(arguments, rule):
    with pytest.raises(ValueError, match=re.escape(rule)):
        kernels.kmeans(*arguments)


def test_other_types_are_refused():
    with pytest.raises(TypeError, match="must be float16"):
        kernels.kmeans(np.ones((3, 2), np.int32), 2)
    with pytest.raises(TypeError, match="kmeans: weights must be numbers, not <U1"):
        kernels.kmeans(np.ones((3, 2)), 2, ["a", "b", "c"])
