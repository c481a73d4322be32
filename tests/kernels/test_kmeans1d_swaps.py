"""`kmeans1d` takes what other one-dimensional solvers take and tells what they tell."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import corepress as cp

numbers = st.integers(-50, 50).map(lambda number: number / 8)


@given(st.lists(numbers, min_size=1, max_size=60), st.integers(1, 8))
def test_a_call_of_kmeans1d_needs_only_another_name(kmeans1d, values, k):
    peer = kmeans1d.cluster(values, k)
    found = cp.kernels.kmeans1d(values, k)
    clusters, centroids, inertia = found
    assert found.clusters is clusters
    assert found.centroids is centroids
    # Of several optima each may find another one; what each value is replaced by costs the same.
    cost = ((np.array(peer.centroids)[peer.clusters] - values) ** 2).sum()
    assert ((centroids[clusters] - values) ** 2).sum() == pytest.approx(cost, abs=1e-9)
    assert inertia == pytest.approx(cost, abs=1e-9)


@given(st.lists(st.tuples(numbers, st.integers(1, 9)), min_size=1, max_size=60), st.integers(1, 8))
def test_weights_are_given_as_to_coremltools_copy_of_kmeans1d(kmeans1d, pairs, k):
    values, weights = np.array(pairs, float).T
    peer = kmeans1d.cluster(values, min(k, values.size), weights=weights)
    found = cp.kernels.kmeans1d(values, k, weights=weights)
    cost = (weights * (np.array(peer.centroids)[peer.clusters] - values) ** 2).sum()
    assert found.inertia == pytest.approx(cost, abs=1e-9)


def test_borders_of_sorted_values_as_flash1dkmeans_tells_them():
    values = np.sort(np.random.default_rng(7).normal(size=500))
    k = 7
    labels, centroids, _ = cp.kernels.kmeans1d(values, k)
    borders = np.searchsorted(labels, np.arange(k + 1))
    assert borders[0] == 0
    assert borders[-1] == values.size
    for cluster, (start, stop) in enumerate(pairwise(borders)):
        assert (labels[start:stop] == cluster).all()
        assert centroids[cluster] == pytest.approx(values[start:stop].mean())


def test_labels_stand_in_the_order_of_the_values():
    labels, centroids, _ = cp.kernels.kmeans1d([5.0, -1.0, 5.0, 0.0, 4.0], 2)
    np.testing.assert_array_equal(labels, [1, 0, 1, 0, 1])
    np.testing.assert_allclose(centroids, [-0.5, 14 / 3])
