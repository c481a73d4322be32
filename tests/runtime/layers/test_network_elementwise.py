"""Activations, functions of elements, comparisons and reductions, from their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

X = np.array([[[-2.0, -0.5, 0.0], [0.25, 1.0, 3.0]]], np.float32)
SMALL = np.array([0.1, 0.4, 0.9], np.float32)
LARGE = np.array([1.5, 2.5, -1.5], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def erf(x):
    return np.vectorize(math.erf)(x)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"linear": {"alpha": 2, "beta": 1}}, 2 * X + 1),
        ({"ReLU": {}}, np.maximum(X, 0)),
        ({"leakyReLU": {"alpha": 0.5}}, np.where(X >= 0, X, 0.5 * X)),
        ({"thresholdedReLU": {"alpha": 1}}, np.where(X >= 1, X, 0)),
        ({"tanh": {}}, np.tanh(X)),
        ({"scaledTanh": {"alpha": 2, "beta": 0.5}}, 2 * np.tanh(0.5 * X)),
        ({"sigmoid": {}}, sigmoid(X)),
        ({"sigmoidHard": {"alpha": 0.5, "beta": 0.25}}, np.clip(0.5 * X + 0.25, 0, 1)),
        ({"ELU": {"alpha": 2}}, np.where(X >= 0, X, 2 * (np.exp(X) - 1))),
        ({"softsign": {}}, X / (1 + np.abs(X))),
        ({"softplus": {}}, np.log1p(np.exp(X))),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_activations(check, params, expected):
    check("activation", params, [X], expected)


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.25]])
def test_prelu_is_per_channel(check, weight, values):
    x = X.reshape(2, 3, 1)
    alpha = np.array(values)[:, None, None]
    check("activation", {"PReLU": {"alpha": weight(values)}}, [x], np.where(x >= 0, x, alpha * x))


def test_parametric_softplus_is_per_channel(check, weight):
    x, alpha, beta = X.reshape(2, 3, 1), np.array([2.0, 3.0]), np.array([0.5, 1.0])
    params = {"parametricSoftplus": {"alpha": weight(alpha), "beta": weight(beta)}}
    check("activation", params, [x], alpha[:, None, None] * np.log1p(np.exp(beta[:, None, None] * x)))


@pytest.mark.parametrize("mode", range(3))
def test_gelu(check, mode):
    expected = (
        0.5 * X * (1 + erf(X / np.sqrt(2))),
        0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X**3))),
        X * sigmoid(1.702 * X),
    )
    check("gelu", {"mode": mode}, [X], expected[mode], 1e-5)


def test_clamped_relu(check):
    check("clampedReLU", {"alpha": 0.5, "beta": 2}, [X], np.minimum(2, np.where(X >= 0, X, 0.5 * X)))


def test_softmax(check):
    def softmax(x, axis):
        powers = np.exp(x)
        return powers / powers.sum(axis, keepdims=True)

    x = np.random.default_rng(0).normal(size=(2, 4, 3, 2))
    check("softmax", {}, [x], softmax(x, -3))
    check("softmaxND", {"axis": 1}, [x], softmax(x, 1))
    check("softmaxND", {"axis": -1}, [x], softmax(x, 3))


FUNCTIONS = {
    "ceil": (np.ceil, LARGE),
    "floor": (np.floor, LARGE),
    "sign": (np.sign, X),
    "round": (np.round, LARGE),
    "exp2": (np.exp2, X),
    "sin": (np.sin, X),
    "cos": (np.cos, X),
    "tan": (np.tan, SMALL),
    "asin": (np.arcsin, SMALL),
    "acos": (np.arccos, SMALL),
    "atan": (np.arctan, X),
    "sinh": (np.sinh, X),
    "cosh": (np.cosh, X),
    "tanh": (np.tanh, X),
    "asinh": (np.arcsinh, X),
    "acosh": (np.arccosh, np.abs(LARGE)),
    "atanh": (np.arctanh, SMALL),
    "erf": (erf, X),
    "logicalNot": (np.logical_not, X),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(check, name):
    function, x = FUNCTIONS[name]
    check(name, {}, [x], function(x))


def test_clip(check):
    check("clip", {"minVal": -1, "maxVal": 0.5}, [X], np.clip(X, -1, 0.5))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (0, np.sqrt(SMALL)),
        (1, 1 / np.sqrt(SMALL + 1e-6)),
        (2, 1 / (SMALL + 1e-6)),
        (3, SMALL**1.5),
        (4, np.exp(SMALL)),
        (5, np.log(SMALL)),
        (6, np.abs(SMALL)),
        (7, np.maximum(SMALL, 1.5)),
    ],
)
def test_unary(check, mode, expected):
    check("unary", {"type": mode, "alpha": 1.5}, [SMALL], expected)


def test_unary_scales_and_shifts_before_and_scale_is_1_by_default(check):
    check("unary", {"type": 0, "scale": 2, "shift": 1}, [SMALL], np.sqrt(2 * SMALL + 1))
    check("unary", {"type": 0, "shift": 1}, [SMALL], np.sqrt(SMALL + 1))


def test_unary_epsilon(check):
    check("unary", {"type": 2, "epsilon": 0.5}, [[0.0, 1.0]], [2, 1 / 1.5])
    check("unary", {"type": 2}, [[0.0]], [1e6], 1e-5)
    check("unary", {"type": 5, "epsilon": 0.5}, [[0.0, 1.0]], np.log([0.5, 1.5]))
    check("unary", {"type": 5}, [[0.0, 1e-8]], [-np.inf, np.log(1e-8)])


BINARY = {
    "addBroadcastable": np.add,
    "subtractBroadcastable": np.subtract,
    "multiplyBroadcastable": np.multiply,
    "divideBroadcastable": np.divide,
    "floorDivBroadcastable": np.floor_divide,
    "modBroadcastable": np.mod,
    "powBroadcastable": np.power,
    "minBroadcastable": np.minimum,
    "maxBroadcastable": np.maximum,
    "equal": np.equal,
    "notEqual": np.not_equal,
    "lessThan": np.less,
    "lessEqual": np.less_equal,
    "greaterThan": np.greater,
    "greaterEqual": np.greater_equal,
}


@pytest.mark.parametrize("name", BINARY)
def test_binary(check, name):
    x = np.array([[1.0, 2.5, 4.0], [0.5, 3.0, 7.5]])
    y = np.array([2.0, 2.5, 3.0])
    check(name, {}, [x, y], BINARY[name](x, y))


def test_mod_has_the_sign_of_the_divisor(check):
    check("modBroadcastable", {}, [[-7.0, 7.0], [3.0, -3.0]], [2, -2])


@pytest.mark.parametrize("name", ["equal", "notEqual", "lessThan", "lessEqual", "greaterThan", "greaterEqual"])
def test_comparisons_with_a_number(check, name):
    check(name, {"alpha": 0.25}, [X], BINARY[name](X, 0.25))


@pytest.mark.parametrize("name", ["logicalAnd", "logicalOr", "logicalXor"])
def test_logical(check, name):
    x, y = np.array([0.0, 0.0, 2.0, -1.0]), np.array([0.0, 3.0, 0.0, 1.0])
    check(name, {}, [x, y], getattr(np, f"logical_{name[7:].lower()}")(x, y))


@pytest.mark.parametrize(
    ("name", "one", "several"),
    [
        ("add", X + 1.5, X + X[..., :1] + 2 * X),
        ("multiply", X * 1.5, X * X[..., :1] * 2 * X),
        ("average", None, (X + X[..., :1] + 2 * X) / 3),
        ("max", None, np.maximum(np.maximum(X, X[..., :1]), 2 * X)),
        ("min", None, np.minimum(np.minimum(X, X[..., :1]), 2 * X)),
    ],
)
def test_several_inputs(check, name, one, several):
    if one is not None:
        check(name, {"alpha": 1.5}, [X], one)
    check(name, {}, [X, X[..., :1], 2 * X], several)


def test_dot(check):
    x, y = np.random.default_rng(1).normal(size=(2, 2, 5, 1, 1))
    product = (x * y).sum(1, keepdims=True)
    lengths = [np.sqrt((each**2).sum(1, keepdims=True)) for each in (x, y)]
    check("dot", {}, [x, y], product)
    check("dot", {"cosineSimilarity": True}, [x, y], product / (lengths[0] * lengths[1]))


def test_copy(check):
    check("copy", {}, [X], X)


REDUCTIONS = {
    "reduceL1": lambda x, **over: np.abs(x).sum(**over),
    "reduceL2": lambda x, **over: np.sqrt((x**2).sum(**over)),
    "reduceMax": np.max,
    "reduceMin": np.min,
    "reduceSum": np.sum,
    "reduceProd": np.prod,
    "reduceMean": np.mean,
    "reduceLogSum": lambda x, **over: np.log(x.sum(**over)),
    "reduceSumSquare": lambda x, **over: (x**2).sum(**over),
    "reduceLogSumExp": lambda x, **over: np.log(np.exp(x).sum(**over)),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(check, name, keep):
    x = np.random.default_rng(2).uniform(0.5, 2, (2, 3, 4))
    expected = REDUCTIONS[name](x, axis=(0, 2), keepdims=keep)
    check(name, {"axes": [0, -1], "keepDims": keep}, [x], expected, 1e-5)
    everything = np.reshape(REDUCTIONS[name](x, axis=None, keepdims=keep), (1, 1, 1) if keep else (1,))
    check(name, {"axes": [0], "keepDims": keep, "reduceAll": True}, [x], everything, 1e-5)


OLD_REDUCTIONS = [
    np.sum,
    np.mean,
    np.prod,
    lambda x, **over: np.log(x + 1e-6).sum(**over),
    lambda x, **over: (x**2).sum(**over),
    lambda x, **over: np.abs(x).sum(**over),
    lambda x, **over: np.sqrt((x**2).sum(**over)),
    np.max,
    np.min,
]


@pytest.mark.parametrize("axis", range(5))
@pytest.mark.parametrize("mode", range(9))
def test_reduce(check, mode, axis):
    x = np.random.default_rng(3).uniform(0.5, 2, (2, 3, 4, 2))
    axes = ((-3, -2, -1), (-2, -1), (-3,), (-2,), (-1,))[axis]
    check("reduce", {"mode": mode, "axis": axis}, [x], OLD_REDUCTIONS[mode](x, axis=axes, keepdims=True), 1e-5)


def test_reduce_to_the_index_of_the_largest(check):
    x = np.random.default_rng(4).normal(size=(2, 3, 4))
    check("reduce", {"mode": 9, "axis": 2}, [x], x.argmax(0)[None])
    check("reduce", {"mode": 9, "axis": 4}, [x], x.argmax(2)[..., None])


def test_reduce_to_an_index_needs_one_axis(run_layer):
    with pytest.raises(ValueError, match=r"layer layer0 \(reduce\): ARGMAX reduces one axis"):
        run_layer("reduce", {"mode": 9, "axis": 0}, X)


@pytest.mark.parametrize("name", ["argMax", "argMin"])
def test_index_of_extremum(check, name):
    x = np.random.default_rng(5).normal(size=(2, 3, 4))
    index = getattr(np, name.lower())(x, 1)
    check(name, {"axis": -2}, [x], index[:, None])
    check(name, {"axis": 1, "removeDim": True}, [x], index)
    check(name, {"axis": 0, "removeDim": True}, [x[0, 0]], [getattr(np, name.lower())(x[0, 0])])
