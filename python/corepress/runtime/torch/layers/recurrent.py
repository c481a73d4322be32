"""Recurrent layers, on sequences of shape (sequence, batch, channels, 1, 1).

A layer that reads its sequence backwards returns its outputs in the order of computation: the first belongs to the last
element. The backward half of a bidirectional layer is in the order of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from .activation import function_of
from .registry import Given, Run, layer

Function: TypeAlias = Callable[[Tensor], Tensor]

_CLIP = 50.0  # of what activations take, and of the cell unless it says otherwise
_FIXED: dict[str, Function] = {
    "linear": lambda x: x,
    "scaledTanh": torch.tanh,
    "sigmoidHard": lambda x: (0.2 * x + 0.5).clamp(0, 1),
}
_GRU_GATES = ("updateGate", "resetGate", "outputGate")
_LSTM_GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(-_CLIP, _CLIP)


def _activation(message: Any) -> Function:
    """An activation. Those whose parameters are left out have fixed ones here."""
    kind = message.WhichOneof("NonlinearityType")
    values: Any = getattr(message, kind or "", None)
    if kind in _FIXED and values.alpha == 0 and values.beta == 0:
        return _FIXED[kind]
    return function_of(message)


def _activations(messages: Any, count: int) -> list[Function]:
    if len(messages) != count:
        raise ValueError(f"it must have {count} activations, not {len(messages)}")
    return [_activation(message) for message in messages]


def _vectors(x: Tensor) -> Tensor:
    """The sequence, of shape (sequence, batch, channels)."""
    if x.dim() != 5 or x.shape[-2:] != (1, 1):
        raise ValueError(f"its input must have shape (sequence, batch, channels, 1, 1), not {tuple(x.shape)}")
    return x[..., 0, 0]


def _state(given: Tensor | None, x: Tensor, size: int) -> Tensor:
    """A state of shape (batch, size); zeros if none is given."""
    if given is None:
        return x.new_zeros(x.shape[1], size)
    return given.reshape(-1, size).expand(x.shape[1], size)


def _result(outputs: Sequence[Tensor], whole: bool) -> Tensor:
    return (torch.stack(list(outputs)) if whole else outputs[-1][None])[..., None, None]


def _as_state(state: Tensor) -> Tensor:
    return state[None, ..., None, None]


def _joined(weights: Mapping[str, Tensor], names: Sequence[str], suffix: str) -> Tensor | None:
    """The matrices or vectors of some gates below each other; None if they are absent."""
    found = [weights[name + suffix] for name in names if name + suffix in weights]
    return torch.cat(found) if len(found) == len(names) else None


@layer("simpleRecurrent")
def simple_recurrent(given: Given) -> Run:
    """``y = f(W x + R y + b)``."""
    params = given.params
    activation = _activation(params.activation)
    size, whole, backwards = int(params.outputVectorSize), params.sequenceOutput, params.reverseInput

    def run(
        x: Tensor,
        h: Tensor | None = None,
        *,
        weightMatrix: Tensor,
        recursionMatrix: Tensor,
        biasVector: Tensor | None = None,
    ) -> Any:
        sequence = _vectors(x)
        state, outputs = _state(h, sequence, size), []
        for step in _steps(functional.linear(sequence, weightMatrix, biasVector), backwards):
            state = activation(_clipped(step + state @ recursionMatrix.t()))
            outputs.append(state)
        return (_result(outputs, whole), _as_state(state))[: given.outputs]

    return run


def _steps(inputs: Tensor, backwards: bool) -> list[Tensor]:
    steps = list(inputs.unbind(0))
    if not steps:
        raise ValueError("its sequence is empty")
    return steps[::-1] if backwards else steps


@layer("gru")
def gru(given: Given) -> Run:
    """A gated recurrent unit, whose reset gate acts before the recursion."""
    params = given.params
    gate, activation = _activations(params.activations, 2)
    size, whole, backwards = int(params.outputVectorSize), params.sequenceOutput, params.reverseInput

    def run(x: Tensor, h: Tensor | None = None, **weights: Tensor) -> Any:
        sequence = _vectors(x)
        matrix = _joined(weights, _GRU_GATES, "WeightMatrix")
        recursion = _joined(weights, _GRU_GATES[:2], "RecursionMatrix")
        if matrix is None or recursion is None or "outputGateRecursionMatrix" not in weights:
            raise ValueError("weights of its gates are missing")
        output_recursion = weights["outputGateRecursionMatrix"].t()
        inputs = functional.linear(sequence, matrix, _joined(weights, _GRU_GATES, "BiasVector"))
        state, outputs = _state(h, sequence, size), []
        for step in _steps(inputs, backwards):
            both = gate(_clipped(step[:, : 2 * size] + state @ recursion.t()))
            update, reset = both[:, :size], both[:, size:]
            new = activation(_clipped(step[:, 2 * size :] + (reset * state) @ output_recursion))
            state = new + update * (state - new)
            outputs.append(state)
        return (_result(outputs, whole), _as_state(state))[: given.outputs]

    return run


def _is_usual(messages: Any) -> bool:
    """Whether the activations of an LSTM are those that PyTorch's own has."""
    return [message.WhichOneof("NonlinearityType") for message in messages] == ["sigmoid", "tanh", "tanh"]


def _lstm(params: Any, size: int, messages: Any) -> Callable[..., Any]:
    """A function that runs one direction and returns its outputs and last states."""
    gate, block, output = _activations(messages, 3)
    limit = params.cellClipThreshold or _CLIP
    is_usual = _is_usual(messages) and not params.coupledInputAndForgetGate and not params.hasPeepholeVectors
    forget_bias, coupled = float(params.forgetBias), params.coupledInputAndForgetGate

    def run(
        sequence: Tensor, h: Tensor | None, c: Tensor | None, weights: Mapping[str, Tensor], backwards: bool
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        matrix = _joined(weights, _LSTM_GATES, "WeightMatrix")
        recursion = _joined(weights, _LSTM_GATES, "RecursionMatrix")
        if matrix is None or recursion is None:
            raise ValueError("weights of its gates are missing")
        bias = _joined(weights, _LSTM_GATES, "BiasVector")
        # A cell grows by 1 at most in a step.
        if is_usual and c is None and 0 < len(sequence) <= limit:
            return _lstm_of_pytorch(sequence, h, (matrix, recursion, bias), forget_bias, backwards)
        inputs = functional.linear(sequence, matrix, bias)
        peephole_i, peephole_f, peephole_o = (
            weights.get(f"{name}PeepholeVector", 0.0) for name in ("inputGate", "forgetGate", "outputGate")
        )
        state, cell, outputs = _state(h, sequence, size), _state(c, sequence, size), []
        for step in _steps(inputs, backwards):
            i, f, z, o = (step + state @ recursion.t()).chunk(4, -1)
            i = gate(_clipped(i + peephole_i * cell))
            z = block(_clipped(z))
            kept = 1 - i if coupled else gate(_clipped(f + peephole_f * cell + forget_bias))
            cell = (cell * kept + i * z).clamp(-limit, limit)
            state = output(cell) * gate(_clipped(o + peephole_o * cell))
            outputs.append(state)
        return outputs, state, cell

    return run


def _lstm_of_pytorch(
    sequence: Tensor,
    h: Tensor | None,
    weights: tuple[Tensor, Tensor, Tensor | None],
    forget_bias: float,
    backwards: bool,
) -> tuple[list[Tensor], Tensor, Tensor]:
    """All steps in one kernel, which differs only where gates are saturated."""
    matrix, recursion, bias = weights
    size = recursion.shape[1]
    more = torch.zeros_like(matrix[:, 0])
    more[size : 2 * size] = forget_bias
    state = _state(h, sequence, size)[None].contiguous()
    parameters = [matrix, recursion, torch.zeros_like(more) if bias is None else bias, more]
    x = sequence.flip(0) if backwards else sequence
    y, state, cell = torch.lstm(x, (state, torch.zeros_like(state)), parameters, True, 1, 0.0, False, False, False)
    return list(y.unbind(0)), state[0], cell[0]


def _of_direction(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


@layer("uniDirectionalLSTM")
def lstm(given: Given) -> Run:
    """Long short-term memory, in one direction."""
    params = given.params
    compute = _lstm(params.params, int(params.outputVectorSize), params.activations)
    whole, backwards = params.params.sequenceOutput, params.reverseInput

    def run(x: Tensor, h: Tensor | None = None, c: Tensor | None = None, **weights: Tensor) -> Any:
        outputs, state, cell = compute(_vectors(x), h, c, _of_direction(weights, "weightParams_"), backwards)
        return (_result(outputs, whole), _as_state(state), _as_state(cell))[: given.outputs]

    return run


@layer("biDirectionalLSTM")
def bidirectional_lstm(given: Given) -> Run:
    """Long short-term memory, in both directions."""
    params = given.params
    size, whole = int(params.outputVectorSize), params.params.sequenceOutput
    forwards = _lstm(params.params, size, params.activationsForwardLSTM)
    backwards = _lstm(params.params, size, params.activationsBackwardLSTM)

    def run(
        x: Tensor,
        h: Tensor | None = None,
        c: Tensor | None = None,
        h_back: Tensor | None = None,
        c_back: Tensor | None = None,
        **weights: Tensor,
    ) -> Any:
        sequence = _vectors(x)
        ahead, state, cell = forwards(sequence, h, c, _of_direction(weights, "weightParams_0_"), False)
        back, state_back, cell_back = backwards(
            sequence, h_back, c_back, _of_direction(weights, "weightParams_1_"), True
        )
        if whole:
            outputs = [torch.cat(both, -1) for both in zip(ahead, back[::-1], strict=True)]
        else:
            outputs = [torch.cat((ahead[-1], back[-1]), -1)]
        states = (state, cell, state_back, cell_back)
        return (_result(outputs, whole), *map(_as_state, states))[: given.outputs]

    return run
