import itertools

import numpy as np
import pytest
import torch
from operations import call, check_gradients, close, random_array

STEPS, BATCH, INPUTS, SIZE = 4, 2, 3, 5
ACTIVATIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "sigmoid_hard": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}


def weights(gates, seed=0):
    """The weights of the input and of the state, and a bias."""
    count = gates * SIZE
    return tuple(random_array(*shape, seed=seed) for shape in ((count, INPUTS), (count, SIZE), (count,)))


def run(x, states, step, direction, output_sequence):
    outputs = []
    for each in x[::-1] if direction == "reverse" else x:
        states = step(each, *states)
        outputs.append(states[0])
    return np.stack(outputs) if output_sequence else outputs[-1][None], *states


def rnn_step(weight_ih, weight_hh, bias, activation):
    def step(x, h):
        return (ACTIVATIONS[activation](x @ weight_ih.T + h @ weight_hh.T + bias),)

    return step


def gru_step(weight_ih, weight_hh, bias, input_bias, gate, activation, reset_after):
    (ir, io, iz), (hr, ho, hz) = np.split(weight_ih, 3), np.split(weight_hh, 3)
    (br, bo, bz), (cr, co, cz) = np.split(bias, 3), np.split(input_bias, 3)
    gate, activation = ACTIVATIONS[gate], ACTIVATIONS[activation]

    def step(x, h):
        r = gate(x @ ir.T + cr + h @ hr.T + br)
        z = gate(x @ iz.T + cz + h @ hz.T + bz)
        hidden = r * (h @ ho.T + bo) if reset_after else (r * h) @ ho.T + bo
        o = activation(x @ io.T + co + hidden)
        return ((1 - z) * o + z * h,)

    return step


def lstm_step(weight_ih, weight_hh, bias, peephole, activations, clip):
    gate, cell, output = (ACTIVATIONS[each] for each in activations)
    pi, pf, po = np.split(peephole, 3)

    def step(x, h, c):
        i, f, o, z = np.split(x @ weight_ih.T + h @ weight_hh.T + bias, 4, axis=1)
        i, f = gate(i + pi * c), gate(f + pf * c)
        c = f * c + i * cell(z)
        c = c if clip is None else np.clip(c, -clip, clip)
        return gate(o + po * c) * output(c), c

    return step


X = random_array(STEPS, BATCH, INPUTS, seed=7)
H, C = random_array(BATCH, SIZE, seed=8), random_array(BATCH, SIZE, seed=9)
DIRECTIONS = pytest.mark.parametrize("direction", ["forward", "reverse"])
SEQUENCES = pytest.mark.parametrize("output_sequence", [False, True])


def check(results, expected):
    assert len(results) == len(expected)
    for result, array in zip(results, expected, strict=True):
        close(result, array, atol=1e-5)


@DIRECTIONS
@SEQUENCES
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("biased", [False, True])
def test_rnn(direction, output_sequence, activation, biased):
    weight_ih, weight_hh, bias = weights(1)
    expected = run(X, (H,), rnn_step(weight_ih, weight_hh, bias * biased, activation), direction, output_sequence)
    given = (weight_ih, weight_hh, *([bias] if biased else []))
    options = {"direction": direction, "output_sequence": output_sequence, "activation": activation}
    check(call("rnn", X, H, *given, **options), expected)


@DIRECTIONS
@SEQUENCES
@pytest.mark.parametrize("reset_after", [False, True])
@pytest.mark.parametrize(("gate", "activation"), [("sigmoid", "tanh"), ("hard_sigmoid", "relu")])
@pytest.mark.parametrize("biases", ["none", "bias", "input", "both"])
def test_gru(direction, output_sequence, reset_after, gate, activation, biases):
    weight_ih, weight_hh, bias = weights(3)
    input_bias = random_array(3 * SIZE, seed=3)
    has_bias, has_input = biases in ("bias", "both"), biases in ("input", "both")
    step = gru_step(weight_ih, weight_hh, bias * has_bias, input_bias * has_input, gate, activation, reset_after)
    options = {"direction": direction, "output_sequence": output_sequence}
    options |= {"recurrent_activation": gate, "activation": activation, "reset_after": reset_after}
    given = (X, H, weight_ih, weight_hh, bias if has_bias else None, input_bias if has_input else None)
    check(call("gru", *given, **options), run(X, (H,), step, direction, output_sequence))


def test_gru_with_reset_after_is_that_of_pytorch():
    layer = torch.nn.GRU(INPUTS, SIZE)
    blocks = [np.split(each.detach().numpy(), 3) for each in layer.parameters()]
    weight_ih, weight_hh, input_bias, bias = (np.concatenate([r, n, z]) for r, z, n in blocks)
    y, h = layer(torch.from_numpy(X), torch.from_numpy(H)[None])
    options = {"reset_after": True, "output_sequence": True}
    check(call("gru", X, H, weight_ih, weight_hh, bias, input_bias, **options), [y.detach(), h[0].detach()])


LSTMS = [
    (("sigmoid", "tanh", "tanh"), False, None),
    (("sigmoid", "tanh", "tanh"), True, None),
    (("sigmoid", "tanh", "tanh"), False, 0.2),
    (("hard_sigmoid", "relu", "linear"), True, 0.5),
]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@SEQUENCES
@pytest.mark.parametrize(("activations", "peeped", "clip"), LSTMS)
@pytest.mark.parametrize("biased", [False, True])
def test_lstm(direction, output_sequence, activations, peeped, clip, biased):
    given, expected = [], []
    both = direction == "bidirectional"
    states_h, states_c = (np.concatenate([each, -each], 1) if both else each for each in (H, C))
    for number in range(1 + both):
        weight_ih, weight_hh, bias = weights(4, seed=number)
        peephole = random_array(3 * SIZE, seed=4 + number)
        step = lstm_step(weight_ih, weight_hh, bias * biased, peephole * peeped, activations, clip)
        sign = -1 if number else 1
        own = "reverse" if number else direction
        y, h, c = run(X, (sign * H, sign * C), step, own, output_sequence)
        expected.append((y[::-1] if number else y, h, c))
        given += [weight_ih, weight_hh, bias if biased else None, peephole if peeped else None]
    options = dict(zip(("recurrent_activation", "cell_activation", "activation"), activations, strict=True))
    options |= {"direction": direction, "output_sequence": output_sequence, "clip": clip}
    results = call("lstm", X, states_h, states_c, *given, **options)
    check(results, [np.concatenate(each, -1) for each in zip(*expected, strict=True)])


def test_bidirectional_lstm_is_that_of_pytorch():
    layer = torch.nn.LSTM(INPUTS, SIZE, bidirectional=True)
    given = []
    for suffix in ("", "_reverse"):
        blocks = [
            np.split(getattr(layer, f"{name}_l0{suffix}").detach().numpy(), 4)
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        weight_ih, weight_hh, bias_ih, bias_hh = (np.concatenate([i, f, o, z]) for i, f, z, o in blocks)
        given += [weight_ih, weight_hh, bias_ih + bias_hh, None]
    states = torch.from_numpy(np.stack([H, -H])), torch.from_numpy(np.stack([C, -C]))
    y, (h, c) = layer(torch.from_numpy(X), states)
    joined = [np.concatenate([each, -each], 1) for each in (H, C)]
    options = {"direction": "bidirectional", "output_sequence": True}
    expected = [each.detach().numpy() for each in (y, torch.cat(list(h), 1), torch.cat(list(c), 1))]
    check(call("lstm", X, *joined, *given, **options), expected)


@pytest.mark.parametrize(("operation", "gates", "states"), [("rnn", 1, 1), ("gru", 3, 1), ("lstm", 4, 2)])
@SEQUENCES
def test_without_steps_the_state_is_returned(operation, gates, states, output_sequence):
    y, *ends = call(operation, X[:0], *[H] * states, *weights(gates), output_sequence=output_sequence)
    assert y.shape == ((0 if output_sequence else 1), BATCH, SIZE)
    assert all(torch.equal(each, torch.from_numpy(H)) for each in ends)


def test_gradients():
    for operation, gates, states in (("rnn", 1, 1), ("gru", 3, 1), ("lstm", 4, 2)):
        given = (X[:2], *[H] * states, *weights(gates))
        check_gradients(operation, *given, output_sequence=True)
    check_gradients("gru", X[:2], H, *weights(3), reset_after=True)
    check_gradients("lstm", X[:2], H, C, *weights(4), random_array(3 * SIZE), clip=2.0)


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        ("rnn", {"activation": "softsign"}, "activations must be among"),
        ("gru", {"direction": "bidirectional"}, "direction must be forward or reverse"),
        ("lstm", {"direction": "backward"}, "direction must be forward or reverse or bidirectional"),
        ("lstm", {"direction": "bidirectional"}, "needs weight_ih_back"),
    ],
)
def test_what_is_undefined_is_refused(operation, options, message):
    gates, states = {"rnn": (1, 1), "gru": (3, 1), "lstm": (4, 2)}[operation]
    with pytest.raises(ValueError, match=message):
        call(operation, X, *[H] * states, *weights(gates), **options)
    with pytest.raises(ValueError, match="x must have rank 3, got 2"):
        call(operation, X[0], *[H] * states, *weights(gates))


def test_names_of_activations_ignore_case():
    given = (X, H, *weights(1))
    for name, other in itertools.pairwise(("TANH", "tanh", "Scaled_Tanh")):
        assert torch.equal(call("rnn", *given, activation=name)[0], call("rnn", *given, activation=other)[0])
