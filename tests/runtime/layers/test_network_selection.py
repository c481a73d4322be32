"""Chosen, stored and drawn elements, from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

RANDOM = np.random.default_rng(7)
X = RANDOM.normal(size=(2, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(check, axis):
    indices = np.array([[1, 0], [-1, 1]])
    check("gather", {"axis": axis}, [X, indices], np.take(X, indices, axis))


def test_gather_along_axis(check):
    indices = RANDOM.integers(0, 3, (2, 5, 4))
    check("gatherAlongAxis", {"axis": 1}, [X, indices], np.take_along_axis(X, indices, 1))
    check("gatherAlongAxis", {"axis": -2}, [X, indices - 3], np.take_along_axis(X, indices, 1))


def test_gather_nd(check):
    indices = np.array([[1, 2], [0, 0], [1, 0]])
    check("gatherND", {}, [X, indices], X[indices[:, 0], indices[:, 1]])


OPERATORS = [None, np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum]


def scattered(x, place, updates, mode):
    result = x.copy()
    result[place] = updates if mode == 0 else OPERATORS[mode](x[place], updates)
    return result


@pytest.mark.parametrize("mode", range(7))
def test_scatter(check, mode):
    updates = RANDOM.uniform(1, 2, (2, 2, 4)).astype(np.float32)
    expected = scattered(X, np.s_[:, [2, 0]], updates, mode)
    check("scatter", {"axis": 1, "mode": mode}, [X, [2, 0], updates], expected)
    check("scatter", {"axis": -2, "mode": mode}, [X, [-1, 0], updates], expected)


@pytest.mark.parametrize("mode", range(7))
def test_scatter_along_axis(check, mode):
    indices = np.argsort(RANDOM.normal(size=X.shape), 1)[:, :2]
    updates = RANDOM.uniform(1, 2, (2, 2, 4)).astype(np.float32)
    expected = X.copy()
    values = updates if mode == 0 else OPERATORS[mode](np.take_along_axis(X, indices, 1), updates)
    np.put_along_axis(expected, indices, values, 1)
    check("scatterAlongAxis", {"axis": 1, "mode": mode}, [X, indices, updates], expected)


@pytest.mark.parametrize("mode", range(7))
def test_scatter_nd(check, mode):
    updates = RANDOM.uniform(1, 2, (2, 4)).astype(np.float32)
    expected = scattered(X, ([1, 0], [2, 0]), updates, mode)
    check("scatterND", {"mode": mode}, [X, [[1, 2], [0, 0]], updates], expected)


@pytest.mark.parametrize("bottom", [False, True])
def test_top_k(check, bottom):
    order = np.argsort(X if bottom else -X, 1, kind="stable")[:, :2]
    expected = np.take_along_axis(X, order, 1), order
    check("topK", {"axis": 1, "K": 2, "useBottomK": bottom}, [X], expected)
    check("topK", {"axis": -2, "K": 9, "useBottomK": bottom}, [X, [2]], expected)


def test_top_k_of_equal_values_takes_those_that_come_first(check):
    check("topK", {"axis": 0, "K": 3}, [[1, 2, 1, 2]], ([2, 2, 1], [1, 3, 0]))


def test_arg_sort(check):
    """The examples of the format's definition."""
    x = [[3, 5, 32], [3, 77, 6]]
    check("argSort", {"axis": 1}, [x], [[0, 1, 2], [0, 2, 1]])
    check("argSort", {"axis": 1, "descending": True}, [x], [[2, 1, 0], [1, 2, 0]])


def test_where_non_zero(check):
    check("whereNonZero", {}, [[0, 1, 0, 2]], [[1], [3]])
    check("whereNonZero", {}, [[[1, 2], [0, 2]]], [[0, 0], [0, 1], [1, 1]])


def test_where(check):
    check("whereBroadcastable", {}, [[1, 0, -1], [[5], [6]], [7, 8, 9]], [[5, 8, 5], [6, 8, 6]])


@pytest.mark.parametrize(("lower", "upper"), [(1, 0), (-1, 1), (0, -1), (-1, -1)])
def test_band_part(check, lower, upper):
    m, n = np.indices((3, 4))
    kept = ((lower < 0) | (m - n <= lower)) & ((upper < 0) | (n - m <= upper))
    check("matrixBandPart", {"numLower": lower, "numUpper": upper}, [X], X * kept)


@pytest.mark.parametrize("k", [-1, 0, 2])
def test_triangles(check, k):
    check("lowerTriangular", {"k": k}, [X], np.tril(X, k))
    check("upperTriangular", {"k": k}, [X], np.triu(X, k))


def test_one_hot(check):
    params = {"oneHotVectorSize": 4, "axis": -1, "onValue": 5, "offValue": -1}
    expected = np.array([[-1, -1, 5, -1], [-1, -1, -1, -1]])
    check("oneHot", params, [[2, -1]], expected)
    check("oneHot", {**params, "axis": 0, "oneHotVectorSize": 1}, [[2, 4], [4]], expected.T)


def test_cumulative_sums(check):
    """The examples of the format's definition."""
    for exclusive, backwards, expected in (
        (False, False, [4, 10, 17]),
        (True, False, [0, 4, 10]),
        (False, True, [17, 13, 7]),
        (True, True, [13, 7, 0]),
    ):
        check("cumSum", {"excludeFinalSum": exclusive, "reverse": backwards}, [[4, 6, 7]], expected)
    check("cumSum", {"axis": 2}, [X], np.cumsum(X, 2), 1e-5)
    check("cumSum", {"axis": 2}, [X, [-2]], np.cumsum(X, 1), 1e-5)


BOXES = np.array([[[0, 0, 2, 2], [0.1, 0, 2, 2], [5, 5, 2, 2], [9, 9, 1, 1]]], np.float32)
SCORES = np.array([[[0.1, 0.9], [0.8, 0.2], [0.3, 0.1], [0.05, 0.01]]], np.float32)


def test_non_maximum_suppression(check):
    """The second box overlaps the first, of another class; the fourth has too low a score."""
    params = {"iouThreshold": 0.5, "scoreThreshold": 0.2, "maxBoxes": 3}
    kept = [0, 2]
    expected = (
        np.concatenate([BOXES[:, kept], np.zeros((1, 1, 4))], 1),
        np.concatenate([SCORES[:, kept], np.zeros((1, 1, 2))], 1),
        [[0, 2, -1]],
        [2],
    )
    check("NonMaximumSuppression", params, [BOXES, SCORES], expected)
    kept = [0, 1, 2]
    expected = BOXES[:, kept], SCORES[:, kept], [kept], [3]
    check("NonMaximumSuppression", {**params, "perClassSuppression": True}, [BOXES, SCORES], expected)
    inputs = [BOXES, SCORES, [0.99], [0.2], [1]]
    check("NonMaximumSuppression", params, inputs, (BOXES[:, :1], SCORES[:, :1], [[0]], [1]))


def test_non_maximum_suppression_keeps_one_box(check):
    params = {"iouThreshold": 0.5, "scoreThreshold": 0.95, "maxBoxes": 2}
    expected = (
        np.concatenate([BOXES[:, :1], np.zeros((1, 1, 4))], 1),
        np.concatenate([SCORES[:, :1], np.zeros((1, 1, 2))], 1),
        [[0, -1]],
        [1],
    )
    check("NonMaximumSuppression", params, [BOXES, SCORES], expected)


def test_constants(check, weight):
    check("loadConstant", {"shape": [2, 3, 4], "data": weight(X)}, [], X[None, None])
    check("loadConstantND", {"shape": [6, 4], "data": weight(X)}, [], X.reshape(6, 4))


def test_constants_in_half_precision(check, weight):
    half = X.astype(np.float16)
    check("loadConstantND", {"shape": [2, 3, 4], "data": weight(half, np.float16)}, [], half)


def test_fills(check):
    expected = np.full((2, 3, 4), 1.5)
    check("fillLike", {"value": 1.5}, [X], expected)
    check("fillStatic", {"value": 1.5, "targetShape": [2, 3, 4]}, [], expected)
    check("fillDynamic", {"value": 1.5}, [[2, 3, 4]], expected)


def test_ranges(check):
    expected = np.arange(1, 3, 0.5)
    check("rangeStatic", {"startValue": 1, "endValue": 3, "stepSizeValue": 0.5}, [], expected)
    check("rangeDynamic", {"startValue": 1, "stepSizeValue": 0.5}, [[3]], expected)
    check("rangeDynamic", {"startValue": 9, "stepSizeValue": 0.5}, [[3], [1]], expected)
    check("rangeDynamic", {"startValue": 9, "stepSizeValue": 9}, [[3], [1], [0.5]], expected)
    check("rangeDynamic", {"startValue": 3, "stepSizeValue": -1}, [[0]], [3, 2, 1])
    check("rangeDynamic", {"startValue": 3, "stepSizeValue": 1}, [[0]], [])


RANDOM_LAYERS = {
    "Normal": ({"mean": 2, "stdDev": 3}, 2, 3),
    "Uniform": ({"minVal": 1, "maxVal": 4}, 2.5, np.sqrt(9 / 12)),
    "Bernoulli": ({"prob": 0.25}, 0.25, np.sqrt(0.25 * 0.75)),
}
DRAWN = {
    "randomNormalLike",
    "randomNormalStatic",
    "randomNormalDynamic",
    "randomUniformLike",
    "randomUniformStatic",
    "randomUniformDynamic",
    "randomBernoulliLike",
    "randomBernoulliStatic",
    "randomBernoulliDynamic",
}


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_random_numbers(run_layer, name):
    params, mean, deviation = next(value for key, value in RANDOM_LAYERS.items() if key in name)
    shape = (40, 50, 20)
    inputs = [np.zeros(shape)] if name.endswith("Like") else [shape] if name.endswith("Dynamic") else []
    params = {**params, "seed": 3} if inputs else {**params, "seed": 3, "outputShape": shape}
    drawn = run_layer(name, params, *inputs)
    assert drawn.shape == shape
    assert abs(drawn.mean() - mean) < 0.05
    assert abs(drawn.std() - deviation) < 0.05
    np.testing.assert_array_equal(drawn, run_layer(name, params, *inputs))
    params["seed"] = -1
    assert (drawn != run_layer(name, params, *inputs)).any()


@pytest.mark.parametrize("is_logits", [False, True])
def test_categories(run_layer, is_logits):
    chances = np.array([[0.1, 0.6, 0.3], [0.0, 0.0, 1.0]], np.float32)
    x = np.log(chances + 1e-10) if is_logits else chances
    params = {"seed": 5, "numSamples": 20000, "isLogits": is_logits, "temperature": 1}
    drawn = run_layer("categoricalDistribution", params, x)
    assert drawn.shape == (2, 20000)
    np.testing.assert_allclose(np.bincount(drawn[0].astype(int)) / 20000, chances[0], atol=0.02)
    assert (drawn[1] == 2).all()


def test_categories_at_a_temperature(run_layer):
    params = {"seed": 5, "numSamples": 20000, "isLogits": True, "temperature": 2}
    drawn = run_layer("categoricalDistribution", params, [np.log([0.2, 0.8])])
    assert abs(drawn.mean() - 2 / 3) < 0.02  # chances 1 to 4, and 1 to 2 at this temperature
