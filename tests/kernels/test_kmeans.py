"""k-means of vectors, for tools that build formats of their own."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_helpers import DTYPES, assert_same_bits, normal

from corepress import kernels, reference


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
