"""Damage that keeps most of a neural network sound: fields of its messages, its weights, bytes."""

from __future__ import annotations

import struct
from random import Random
from typing import Any

from mutation import messages_of, mutate_bytes, mutate_message

from corepress.neural_network.schema import Model, WeightParams

_FLOATS = (0.0, -0.0, 1e-45, -1e-40, 65519.0, 65520.0, 2.0**124, 3.4028235e38, float("inf"), float("nan"))


def mutate_network(data: bytes, rng: Random, donor: bytes) -> bytes:
    """Damage a serialized model in a few places; messages may come from `donor`, another one."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
        if rng.random() < 0.1:
            data = mutate_bytes(data, rng, donor)
            continue
        try:
            model, lent = Model.FromString(data), messages_of(Model.FromString(donor))
        except Exception:  # protobuf's errors differ between its implementations
            data = mutate_bytes(data, rng, donor)
            continue
        found = messages_of(model)
        weights = [each for each in found if isinstance(each, WeightParams)]
        if weights and rng.random() < 0.4:
            _mutate_weight(rng.choice(weights), rng)
        else:
            mutate_message(rng.choice(found), rng, lent)
        try:
            data = model.SerializeToString(deterministic=True)
        except Exception:  # text that is not Unicode, say
            return data
    return data


def _mutate_weight(params: Any, rng: Random) -> None:
    """Change some values to hard ones, or how they are stored."""
    kind = rng.randrange(4)
    if kind < 2 and params.floatValue:
        values = bytearray(params.floatValue[0])
        for _ in range(rng.choice((1, 1, 4))):
            if len(values) >= 4:
                struct.pack_into("<f", values, 4 * rng.randrange(len(values) // 4), rng.choice(_FLOATS))
        params.floatValue[0] = bytes(values)
    elif kind == 2 and params.floatValue:
        whole = b"".join(params.floatValue)
        cut = rng.randrange(len(whole) + 1)
        del params.floatValue[:]
        params.floatValue.extend([whole[:cut], whole[cut:]])
    else:
        linear = params.quantization.linearQuantization
        for numbers in (linear.scale, linear.bias, params.quantization.lookupTableQuantization.floatValue):
            if len(numbers):
                numbers[rng.randrange(len(numbers))] = rng.choice(_FLOATS)
