"""Which weight is which, in a file about a model: names that are unique, and digests of what is stored."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

from ..format.values import ValueReader
from .storage import steps
from .weights import Weight

_PIECE = 1 << 22  # bytes that are hashed at a time


def weight_keys(weights: Iterable[Weight]) -> dict[Weight, str]:
    """A unique name for each weight: its own, after its function and a colon where several have it."""
    given = list(weights)
    counts = Counter(weight.first.name for weight in given)
    keys: dict[Weight, str] = {}
    taken: Counter[str] = Counter()
    for weight in given:
        first = weight.first
        key = first.name if counts[first.name] == 1 else f"{first.function}:{first.name}"
        taken[key] += 1
        keys[weight] = key if taken[key] == 1 else f"{key}:{taken[key]}"  # in a nested block
    return keys


def stored_digest(weight: Weight, values: ValueReader) -> str:
    """SHA-256 of a weight as it is stored: the operations that it is made of, and all bytes of their parameters.

    Raises
    ------
    FormatError
        If it is damaged.
    """
    digest = hashlib.sha256()
    for step in steps(weight.first):
        for name, value in sorted(step.parameters.items()):
            tensor = values.read(value, f"{step.where}: {name}")
            head = (step.operation.type, name, tensor.data_type.name, tensor.shape)
            digest.update(repr(head).encode())
            data = np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8)
            for start in range(0, data.size, _PIECE):
                digest.update(data[start : start + _PIECE].data)
        for reference in step.references:  # pages of large files are dropped
            reader = values.file(reference.key.file)
            reader.release(reader.record(reference.key.offset))
    return digest.hexdigest()
