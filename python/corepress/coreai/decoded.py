"""The values of a weight of an asset, however it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ..engine.distances import Pair, Undecodable
from ..tensors import CompressedTensor, QuantizedTensor, SparseTensor
from ..tensors.base import decoded_pieces
from .operations import UnsupportedForm, evaluate
from .program.weights import Weight


def stored_form(weight: Weight) -> NDArray[Any] | CompressedTensor:
    """What decodes to the values that Core AI computes with.

    Raises
    ------
    Undecodable
        If this version does not know how it is stored.
    FormatError
        If it is damaged.
    """
    try:
        stored = weight.read()
        if isinstance(stored, CompressedTensor) and _has_offsets(stored):
            return evaluate(weight.node)  # rounds more often than subtracting the offset first
    except UnsupportedForm as form:
        raise Undecodable(f"{form} is not supported by this version") from None
    return stored


def _has_offsets(tensor: CompressedTensor) -> bool:
    inner: Any = tensor.values if isinstance(tensor, SparseTensor) else getattr(tensor, "lut", tensor)
    return isinstance(inner, QuantizedTensor) and inner.zero_point is not None


def decoded_pairs(first: Weight, second: Weight, num_threads: int | None = None) -> Iterator[Pair]:
    """The values of two weights of one shape, a piece at a time; raises as `stored_form` does."""
    for ours, theirs in decoded_pieces((stored_form(first), stored_form(second)), num_threads):
        yield ours, theirs
        first.release()
        second.release()
