"""Recurrent layers, against the equations of the format's definition."""

from __future__ import annotations

import numpy as np
import pytest

RANDOM = np.random.default_rng(8)
STEPS, BATCH, INPUTS, SIZE = 5, 2, 3, 4
X = RANDOM.normal(size=(STEPS, BATCH, INPUTS, 1, 1)).astype(np.float32)
H, C = RANDOM.normal(size=(2, 1, BATCH, SIZE, 1, 1)).astype(np.float32)
SIZES = {"inputVectorSize": INPUTS, "outputVectorSize": SIZE}
TANH, SIGMOID, RELU = {"tanh": {}}, {"sigmoid": {}}, {"ReLU": {}}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def matrices(names):
    return {
        name: (RANDOM.normal(size=(SIZE, INPUTS)), RANDOM.normal(size=(SIZE, SIZE)), RANDOM.normal(size=SIZE))
        for name in names
    }


def fields(gates, weight, bias=True):
    found = {}
    for name, (matrix, recursion, vector) in gates.items():
        found |= {f"{name}WeightMatrix": weight(matrix), f"{name}RecursionMatrix": weight(recursion)}
        if bias:
            found[f"{name}BiasVector"] = weight(vector)
    return found


def as_state(state):
    return state[None, :, :, None, None]


def results(outputs, whole):
    return np.stack(outputs if whole else outputs[-1:])[..., None, None]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_simple(check, weight, whole, backwards, given):
    matrix, recursion, bias = matrices(["w"])["w"]
    state, outputs = H[0, :, :, 0, 0] if given else np.zeros((BATCH, SIZE)), []
    for x in X[::-1] if backwards else X:
        state = np.tanh(np.clip(x[..., 0, 0] @ matrix.T + state @ recursion.T + bias, -50, 50))
        outputs.append(state)
    params = {
        **SIZES,
        "activation": TANH,
        "sequenceOutput": whole,
        "reverseInput": backwards,
        "hasBiasVector": True,
        "weightMatrix": weight(matrix),
        "recursionMatrix": weight(recursion),
        "biasVector": weight(bias),
    }
    expected = results(outputs, whole), as_state(state)
    check("simpleRecurrent", params, [X, H] if given else [X], expected, 1e-5)


def test_what_activations_take_is_clipped(run_layer, weight):
    params = {
        "inputVectorSize": 1,
        "outputVectorSize": 1,
        "activation": RELU,
        "sequenceOutput": True,
        "weightMatrix": weight([[1]]),
        "recursionMatrix": weight([[1]]),
    }
    x = np.reshape([30, 30, 30, -200], (4, 1, 1, 1, 1))
    np.testing.assert_array_equal(run_layer("simpleRecurrent", params, x).reshape(-1), [30, 50, 50, 0])


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_gru(check, weight, whole, bias, backwards):
    gates = matrices(["updateGate", "resetGate", "outputGate"])
    state, outputs = H[0, :, :, 0, 0], []

    def gate(name, x, state):
        matrix, recursion, vector = gates[name]
        return x[..., 0, 0] @ matrix.T + state @ recursion.T + (vector if bias else 0)

    for x in X[::-1] if backwards else X:
        z, r = sigmoid(gate("updateGate", x, state)), sigmoid(gate("resetGate", x, state))
        o = np.tanh(gate("outputGate", x, state * r))
        state = (1 - z) * o + z * state
        outputs.append(state)
    params = {**SIZES, "activations": [SIGMOID, TANH], "sequenceOutput": whole, "reverseInput": backwards}
    params |= {"hasBiasVectors": bias, **fields(gates, weight, bias)}
    check("gru", params, [X, H], (results(outputs, whole), as_state(state)), 1e-5)


LSTM_GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")


def lstm(gates, peepholes, xs, h, c, *, bias=True, forget=0.0, coupled=False, limit=50.0):
    """The outputs, and the last states, in the order of computation."""

    def gate(name, x, h):
        matrix, recursion, vector = gates[name]
        return x[..., 0, 0] @ matrix.T + h @ recursion.T + (vector if bias else 0)

    h, c, outputs = h[0, :, :, 0, 0], c[0, :, :, 0, 0], []
    p_i, p_f, p_o = peepholes
    for x in xs:
        i = sigmoid(gate("inputGate", x, h) + p_i * c)
        f = 1 - i if coupled else sigmoid(gate("forgetGate", x, h) + p_f * c + forget)
        c = np.clip(c * f + i * np.tanh(gate("blockInput", x, h)), -limit, limit)
        h = np.tanh(c) * sigmoid(gate("outputGate", x, h) + p_o * c)
        outputs.append(h)
    return outputs, h, c


def lstm_fields(gates, peepholes, weight, bias=True):
    names = ("inputGate", "forgetGate", "outputGate")
    found = fields(gates, weight, bias)
    if peepholes is not None:
        found |= {f"{name}PeepholeVector": weight(p) for name, p in zip(names, peepholes, strict=True)}
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sequenceOutput": True},
        {"sequenceOutput": True, "hasBiasVectors": False},
        {"sequenceOutput": True, "forgetBias": True},
        {"sequenceOutput": True, "coupledInputAndForgetGate": True},
        {"sequenceOutput": True, "cellClipThreshold": 0.25},
        {"sequenceOutput": True, "hasPeepholeVectors": True},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_lstm(check, weight, options, backwards, given):
    zeros = np.zeros_like(H)
    h, c = (H, C) if given else (zeros, zeros)
    gates, peepholes = matrices(LSTM_GATES), RANDOM.normal(size=(3, SIZE))
    bias, peeps = options.get("hasBiasVectors", True), options.get("hasPeepholeVectors", False)
    outputs, last_h, last_c = lstm(
        gates,
        peepholes if peeps else (0, 0, 0),
        X[::-1] if backwards else X,
        h,
        c,
        bias=bias,
        forget=float(options.get("forgetBias", False)),
        coupled=options.get("coupledInputAndForgetGate", False),
        limit=options.get("cellClipThreshold", 50),
    )
    params = {
        **SIZES,
        "activations": [SIGMOID, TANH, TANH],
        "params": {"hasBiasVectors": True, **options},
        "weightParams": lstm_fields(gates, peepholes if peeps else None, weight, bias),
        "reverseInput": backwards,
    }
    expected = results(outputs, options.get("sequenceOutput", False)), as_state(last_h), as_state(last_c)
    check("uniDirectionalLSTM", params, [X, h, c] if given else [X], expected, 1e-5)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_bidirectional_lstm(check, weight, whole, given):
    ahead, back = matrices(LSTM_GATES), matrices(LSTM_GATES)
    zeros = np.zeros_like(H)
    h, c = (H, C) if given else (zeros, zeros)
    h_back, c_back = (C, H) if given else (zeros, zeros)
    forwards, *states = lstm(ahead, (0, 0, 0), X, h, c)
    backwards, *states_back = lstm(back, (0, 0, 0), X[::-1], h_back, c_back)
    if whole:
        outputs = [np.concatenate(both, -1) for both in zip(forwards, backwards[::-1], strict=True)]
    else:
        outputs = [np.concatenate([forwards[-1], backwards[-1]], -1)]
    params = {
        **SIZES,
        "activationsForwardLSTM": [SIGMOID, TANH, TANH],
        "activationsBackwardLSTM": [SIGMOID, TANH, TANH],
        "params": {"hasBiasVectors": True, "sequenceOutput": whole},
        "weightParams": [lstm_fields(gates, None, weight) for gates in (ahead, back)],
    }
    expected = results(outputs, whole), *map(as_state, (*states, *states_back))
    check("biDirectionalLSTM", params, [X, h, c, h_back, c_back] if given else [X], expected, 1e-5)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ({"linear": {}}, lambda x: x),
        ({"linear": {"alpha": 2}}, lambda x: 2 * x),
        ({"sigmoidHard": {}}, lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
        ({"scaledTanh": {}}, np.tanh),
        ({"scaledTanh": {"alpha": 1.7159, "beta": 2 / 3}}, lambda x: 1.7159 * np.tanh(2 / 3 * x)),
    ],
)
def test_parameters_of_activations_may_be_left_out(run_layer, weight, activation, function):
    params = {**SIZES, "activation": activation, "recursionMatrix": weight(np.zeros((SIZE, SIZE)))}
    matrix = RANDOM.normal(size=(SIZE, INPUTS))
    found = run_layer("simpleRecurrent", {**params, "weightMatrix": weight(matrix)}, X[:1])
    np.testing.assert_allclose(found[0, :, :, 0, 0], function(X[0, :, :, 0, 0] @ matrix.T), rtol=1e-5, atol=1e-6)


def test_a_sequence_of_another_shape_is_refused(run_layer, weight):
    params = {**SIZES, "activation": TANH, "recursionMatrix": weight(np.zeros((SIZE, SIZE)))}
    params["weightMatrix"] = weight(np.zeros((SIZE, INPUTS)))
    with pytest.raises(RuntimeError, match=r"\(sequence, batch, channels, 1, 1\), not \(3,\)"):
        run_layer("simpleRecurrent", params, X[0, 0, :, 0, 0])
