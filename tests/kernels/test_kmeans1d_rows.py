"""k-means of several rows and several k at once, and the parts that tools call by themselves."""

from __future__ import annotations

import numpy as np
import pytest

from corepress import kernels, reference
from helpers.arrays import DTYPES, bits, normal


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_clustered_each_by_itself(weighted, num_threads):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(23, 57)).round(2)
    values[3] = 0.5
    weights = rng.integers(0, 4, values.shape) + (np.arange(57) == 7) if weighted else None
    codes, centroids, inertia = kernels.kmeans1d(values, 5, weights, num_threads=num_threads)
    assert (codes.shape, centroids.shape, inertia.shape) == ((23, 57), (23, 5), (23,))
    for row in range(23):
        alone = kernels.kmeans1d(values[row], 5, None if weights is None else weights[row])
        assert codes[row].tolist() == alone[0].tolist()
        assert centroids[row, : alone[1].size].tolist() == alone[1].tolist()
        assert set(centroids[row, alone[1].size :].tolist()) <= {alone[1][-1]}
        assert inertia[row] == alone[2]


def test_a_row_of_one_value_repeats_its_centroid():
    codes, centroids, inertia = kernels.kmeans1d(np.full((2, 9), -1.5), 3)
    assert not codes.any()
    assert (centroids == -1.5).all()
    assert not inertia.any()


def test_a_sweep_gives_what_each_k_gives():
    values = np.random.default_rng(1).standard_t(4, 3000)
    swept = kernels.kmeans1d_sweep(values, (2, 4, 8, 16, 64, 256, 300))
    assert list(swept) == [2, 4, 8, 16, 64, 256, 300]
    for k, (codes, centroids, inertia) in swept.items():
        alone = kernels.kmeans1d(values, k)
        assert codes.dtype == (np.uint8 if k <= 256 else np.int32)
        assert codes.tolist() == alone[0].tolist()
        assert centroids.tolist() == alone[1].tolist()
        assert inertia == alone[2]
    errors = [inertia for _, _, inertia in swept.values()]
    assert errors == sorted(errors, reverse=True)


def test_a_sweep_of_rows_against_the_slow_solver():
    values = np.random.default_rng(2).integers(-30, 30, (4, 25)) / 7
    for k, (_, _, inertia) in kernels.kmeans1d_sweep(values, [1, 3, 7]).items():
        expected = [reference.kmeans1d(row.tolist(), k)[1] for row in values]
        np.testing.assert_allclose(inertia, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 0)), 1), r"values must be 1-D or 2-D and not empty, not shape \(2, 0\)"),
        ((np.zeros((1, 1, 1)), 1), "values must be 1-D or 2-D"),
        ((np.zeros((2, 2)), 0), "k must be at least 1, not 0"),
        ((np.zeros((2, 2)), 1, np.ones(2)), "weights must be finite"),
        ((np.zeros((2, 2)), 1, np.array([[1, 1], [0, 0]])), "not all 0"),
        ((np.array([[1, np.inf]]), 1), "values must be finite"),
    ],
)
def test_wrong_rows(arguments, message):
    with pytest.raises(ValueError, match=f"kmeans1d: .*{message}"):
        kernels.kmeans1d(*arguments)
    values, k, *weights = arguments
    with pytest.raises(ValueError, match=f"kmeans1d_sweep: .*{message}"):
        kernels.kmeans1d_sweep(values, [4, k], *weights)


@pytest.mark.parametrize("dtype", DTYPES)
def test_assign_is_its_twin(simd_level, dtype):
    values = normal(33, 5, dtype=dtype)
    centroids = np.sort(normal(11, dtype=dtype, seed=3))
    assert kernels.assign(values, centroids).tolist() == reference.assign(values, centroids).tolist()


def test_assign_takes_the_lower_of_two_and_the_first_of_equals():
    assert kernels.assign(np.float32([-1, 0.5, 0.75, 1, 9]), [0.0, 1.0, 1.0]).tolist() == [0, 0, 1, 1, 1]


def test_assign_refuses_disorder():
    with pytest.raises(ValueError, match="assign: centroids must ascend"):
        kernels.assign(np.float32([1]), [1.0, 0.0])


def test_to_float16_is_numpys():
    values = np.float32([[0.1, -0.0, 65519.9], [65520, 1e-8, np.inf]])
    with np.errstate(over="ignore"):
        expected = values.astype(np.float16)
    assert kernels.to_float16(values).shape == (2, 3)
    assert bits(kernels.to_float16(values)).tolist() == bits(expected).tolist()
