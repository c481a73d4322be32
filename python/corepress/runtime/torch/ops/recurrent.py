"""Recurrent layers; sequences come first: ``x`` is ``[steps, batch, inputs]``.

With ``direction="reverse"`` the outputs stay in the order in which they are computed: the first belongs to the last
input. The backward half of a bidirectional LSTM is aligned with the input.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..registry import implements


def _hard_sigmoid(x: Tensor) -> Tensor:
    return (0.2 * x + 0.5).clamp(0.0, 1.0)


def _identity(x: Tensor) -> Tensor:
    return x


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "scaled_tanh": torch.tanh,
    "relu": torch.relu,
    "linear": _identity,
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid_hard": _hard_sigmoid,
}


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    """Those with parameters have their defaults: ``scaled_tanh`` is ``tanh``, ``hard_sigmoid`` clamps 0.2 x + 0.5."""
    found = _ACTIVATIONS.get(name.lower())
    if found is None:
        raise ValueError(f"activations must be among {', '.join(_ACTIVATIONS)}, got {name!r}")
    return found


def _in_order(x: Tensor, direction: str, allowed: tuple[str, ...] = ("forward", "reverse")) -> Tensor:
    if x.dim() != 3:
        raise ValueError(f"x must have rank 3, got {x.dim()}")
    if direction not in allowed:
        raise ValueError(f"direction must be {' or '.join(allowed)}, got {direction!r}")
    return x.flip(0) if direction == "reverse" else x


def _result(outputs: list[Tensor], h: Tensor, output_sequence: bool) -> Tensor:
    if not output_sequence:
        return h.unsqueeze(0)
    return torch.stack(outputs) if outputs else h.new_zeros((0, *h.shape))


def _reordered(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    """The blocks of the gates in another order."""
    blocks = weight.chunk(len(order))
    return torch.cat([blocks[each] for each in order])


@implements("rnn")
def rnn(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Tensor, Tensor]:
    """``h = activation(weight_ih x + weight_hh h + bias)``."""
    function = _activation(activation)
    inputs = F.linear(_in_order(x, direction), weight_ih, bias)
    h, outputs = initial_h, []
    for step in inputs.unbind(0):
        h = function(torch.addmm(step, h, weight_hh.t()))
        outputs.append(h)
    return _result(outputs, h, output_sequence), h


@implements("gru")
def gru(
    x: Tensor,
    initial_h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    input_bias: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
) -> tuple[Tensor, Tensor]:
    """Its gates are in the order r, o, z (reset, new, update); ``h = (1 - z) o + z h``.

    The reset gate multiplies the state before the product with its weights, or that product and ``bias`` with
    ``reset_after``. ``bias`` belongs to the weights of the state, ``input_bias`` to those of the input.
    """
    gate, function = _activation(recurrent_activation), _activation(activation)
    x = _in_order(x, direction)
    size = weight_hh.shape[1]
    if reset_after and len(x) and (recurrent_activation.lower(), activation.lower()) == ("sigmoid", "tanh"):
        order = (0, 2, 1)
        zeros = weight_hh.new_zeros(3 * size)
        weights = [
            _reordered(each, order)
            for each in (
                weight_ih,
                weight_hh,
                zeros if input_bias is None else input_bias,
                zeros if bias is None else bias,
            )
        ]
        y, last = torch.gru(x, initial_h.unsqueeze(0), weights, True, 1, 0.0, False, False, False)
        return y if output_sequence else last, last.squeeze(0)
    if bias is None:
        bias = weight_hh.new_zeros(3 * size)
    from_input = F.linear(x, weight_ih, input_bias)
    reset_part, new_part, update_part = slice(size), slice(size, 2 * size), slice(2 * size, None)
    gates_input = torch.cat([from_input[..., reset_part], from_input[..., update_part]], -1)
    gates_input = gates_input + torch.cat([bias[reset_part], bias[update_part]])
    gates_weight = torch.cat([weight_hh[reset_part], weight_hh[update_part]]).t()
    new_input, new_weight, new_bias = from_input[..., new_part], weight_hh[new_part].t(), bias[new_part]
    if not reset_after:
        new_input = new_input + new_bias
    h, outputs = initial_h, []
    for gates, step in zip(gates_input.unbind(0), new_input.unbind(0), strict=True):
        reset, update = gate(torch.addmm(gates, h, gates_weight)).chunk(2, 1)
        if reset_after:
            new = function(torch.addcmul(step, reset, torch.addmm(new_bias, h, new_weight)))
        else:
            new = function(torch.addmm(step, reset * h, new_weight))
        h = torch.lerp(new, h, update)
        outputs.append(h)
    return _result(outputs, h, output_sequence), h


def _lstm_steps(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    functions: tuple[Callable[[Tensor], Tensor], ...],
    clip: float | None,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Outputs of all steps, and both states after the last."""
    weight_ih, weight_hh, bias, peephole = weights
    gate, cell, output = functions
    size = weight_hh.shape[1]
    outputs = []
    for step in F.linear(x, weight_ih, bias).unbind(0):
        i, f, o, z = torch.addmm(step, h, weight_hh.t()).chunk(4, 1)
        if peephole is not None:
            i, f = i + c * peephole[:size], f + c * peephole[size : 2 * size]
        c = gate(f) * c + gate(i) * cell(z)
        if clip is not None:
            c = c.clamp(-clip, clip)
        if peephole is not None:
            o = o + c * peephole[2 * size :]
        h = gate(o) * output(c)
        outputs.append(h)
    return outputs, h, c


@implements("lstm")
def lstm(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias: Tensor | None = None,
    peephole: Tensor | None = None,
    weight_ih_back: Tensor | None = None,
    weight_hh_back: Tensor | None = None,
    bias_back: Tensor | None = None,
    peephole_back: Tensor | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Its gates are in the order i, f, o, z (input, forget, output, cell), peepholes in the order i, f, o.

    ``clip`` limits the state of the cells. States of both directions lie next to each other on the last axis; without
    ``output_sequence`` so do the outputs of each direction's last step.
    """
    names = (recurrent_activation, cell_activation, activation)
    functions = tuple(_activation(each) for each in names)
    x = _in_order(x, direction, ("forward", "reverse", "bidirectional"))
    directions: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]] = [(weight_ih, weight_hh, bias, peephole)]
    if direction == "bidirectional":
        if weight_ih_back is None or weight_hh_back is None:
            raise ValueError("direction bidirectional needs weight_ih_back and weight_hh_back, got none")
        directions.append((weight_ih_back, weight_hh_back, bias_back, peephole_back))
    usual = tuple(each.lower() for each in names) == ("sigmoid", "tanh", "tanh") and clip is None
    if usual and len(x) and all(each[3] is None for each in directions):
        return _lstm_of_pytorch(x, initial_h, initial_c, directions, output_sequence)
    states_h, states_c = initial_h.chunk(len(directions), 1), initial_c.chunk(len(directions), 1)
    ends = []
    for number, weights in enumerate(directions):
        steps = x.flip(0) if number else x
        outputs, h, c = _lstm_steps(steps, states_h[number], states_c[number], weights, functions, clip)
        ends.append((_result(outputs[::-1] if number else outputs, h, output_sequence), h, c))
    if len(ends) == 1:
        return ends[0]
    (y, h, c), (y_back, h_back, c_back) = ends
    return torch.cat([y, y_back], 2), torch.cat([h, h_back], 1), torch.cat([c, c_back], 1)


def _lstm_of_pytorch(
    x: Tensor,
    initial_h: Tensor,
    initial_c: Tensor,
    directions: list[tuple[Tensor, Tensor, Tensor | None, Tensor | None]],
    output_sequence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """All steps in one kernel, whose gates are in the order i, f, z, o."""
    order = (0, 1, 3, 2)
    weights: list[Tensor] = []
    for weight_ih, weight_hh, bias, _ in directions:
        zeros = weight_hh.new_zeros(len(weight_hh))
        weights += [_reordered(weight_ih, order), _reordered(weight_hh, order)]
        weights += [zeros if bias is None else _reordered(bias, order), zeros]
    if len(directions) == 1:
        state = [initial_h.unsqueeze(0), initial_c.unsqueeze(0)]
        y, h, c = torch.lstm(x, state, weights, True, 1, 0.0, False, False, False)
        return y if output_sequence else h, h.squeeze(0), c.squeeze(0)
    state = [torch.stack(each.chunk(2, 1)) for each in (initial_h, initial_c)]
    y, h, c = torch.lstm(x, state, weights, True, 1, 0.0, False, True, False)
    h, c = torch.cat(h.unbind(0), 1), torch.cat(c.unbind(0), 1)
    return y if output_sequence else h.unsqueeze(0), h, c
