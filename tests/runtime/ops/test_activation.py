import math

import numpy as np
import pytest
from operations import call, check_gradients, close, random_array

X = np.array([-7.5, -3.0, -1.0, -0.5, -0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 6.0, 6.5, 40.0], np.float32)
CHANNELS = np.array([0.5, -0.25, 3.0], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softplus(x):
    return np.logaddexp(0, x.astype(np.float64))


CASES = {
    "clamped_relu": ({"alpha": 0.5, "beta": 3.0}, np.minimum(np.where(X >= 0, X, 0.5 * X), 3)),
    "clamped_relu below": ({"alpha": 2.0, "beta": -4.0}, np.minimum(np.where(X >= 0, X, 2 * X), -4)),
    "elu": ({"alpha": 1.5}, np.where(X > 0, X, 1.5 * np.expm1(X))),
    "leaky_relu": ({"alpha": 0.1}, np.where(X >= 0, X, 0.1 * X)),
    "leaky_relu negative": ({"alpha": -2.0}, np.where(X >= 0, X, -2 * X)),
    "linear_activation": ({"alpha": 2.0, "beta": -1.0}, 2 * X - 1),
    "relu": ({}, np.maximum(X, 0)),
    "relu6": ({}, np.clip(X, 0, 6)),
    "scaled_tanh": ({"alpha": 2.0, "beta": 0.5}, 2 * np.tanh(0.5 * X)),
    "sigmoid": ({}, sigmoid(X)),
    "sigmoid_hard": ({"alpha": 0.2, "beta": 0.4}, np.clip(0.2 * X + 0.4, 0, 1)),
    "silu": ({}, X * sigmoid(X)),
    "softplus": ({}, softplus(X)),
    "softsign": ({}, X / (1 + np.abs(X))),
    "thresholded_relu": ({"alpha": 0.5}, np.where(X >= 0.5, X, 0)),
    "gelu": ({}, [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in X.tolist()]),
    "gelu tanh": (
        {"mode": "TANH_APPROXIMATION"},
        0.5 * X * (1 + np.tanh(np.sqrt(2 / np.pi) * (X + 0.044715 * X.astype(np.float64) ** 3))),
    ),
    "gelu sigmoid": ({"mode": "SIGMOID_APPROXIMATION"}, X * sigmoid(1.702 * X)),
}


@pytest.mark.parametrize("name", CASES)
def test_activations_of_one_value(name):
    options, expected = CASES[name]
    close(call(name.split(" ")[0], X, **options), np.asarray(expected))
    close(call(name.split(" ")[0], X[8], **options), np.asarray(expected)[8])
    assert call(name.split(" ")[0], X[:0].reshape(2, 0), **options).shape == (2, 0)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("relu", "relu6", "thresholded_relu")])
def test_gradients(name):
    check_gradients(name.split(" ")[0], np.array([-2.3, -0.7, 0.3, 1.9]), **CASES[name][0])


def test_infinite_values_below_the_threshold_are_zero():
    assert call("thresholded_relu", np.array([-np.inf, np.inf], np.float32), alpha=1.0).tolist() == [0, math.inf]


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (1, 3, 2, 2, 2)])
def test_activations_with_parameters_of_channels(shape):
    x = random_array(*shape)
    by_channel = CHANNELS.reshape(3, *[1] * (len(shape) - 2))
    beta = by_channel[::-1]
    close(call("prelu", x, CHANNELS), np.where(x > 0, x, by_channel * x))
    expected = by_channel * softplus(beta * x)
    close(call("softplus_parametric", x, CHANNELS, CHANNELS[::-1].copy()), expected)


def test_gradients_of_parameters():
    check_gradients("prelu", random_array(2, 3, 4), CHANNELS)
    check_gradients("softplus_parametric", random_array(2, 3, 4), CHANNELS, CHANNELS)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, -3])
def test_softmax(axis):
    x = random_array(2, 3, 4) * 30
    options = {} if axis is None else {"axis": axis}
    along = -1 if axis is None else axis
    shares = np.exp(x.astype(np.float64) - x.max(along, keepdims=True))
    close(call("softmax", x, **options), shares / shares.sum(along, keepdims=True))


def test_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="mode must be EXACT"):
        call("gelu", X, mode="FAST")
