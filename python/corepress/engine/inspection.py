"""Records of how the weights of a model are stored."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod
from typing import Any

from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from .records import IDENTITY_COLUMNS, ConstantRecord, bits_per_weight, identity
from .weights import Weight


@dataclass(frozen=True)
class StoredWeight(ConstantRecord):
    """How one constant is stored; in addition to the attributes of `ConstantRecord`:

    Attributes
    ----------
    storage : str
        How it is stored.
    bits_per_weight : float
        Stored bits per weight, tables and scales included.
    bytes : int
        Stored bytes, tables and scales included.
    shared_by : int
        Number of operations that share the stored data.
    """

    storage: str
    bits_per_weight: float
    bytes: int
    shared_by: int

    @classmethod
    def of(cls, weight: Weight, shared_by: int) -> StoredWeight:
        """The record of a weight."""
        size = weight.stored_bytes
        return cls(
            **identity(weight),
            storage=weight.storage,
            bits_per_weight=8.0 * size / max(1, prod(weight.shape)),
            bytes=size,
            shared_by=shared_by,
        )


@dataclass(frozen=True, repr=False, kw_only=True)
class StoredModel:
    """How the weights of a model are stored.

    Attributes
    ----------
    source : str
        The model.
    functions : tuple of str
        Names of its functions.
    weights : tuple of StoredWeight
        One record per constant, in the order of the model.
    """

    source: str
    functions: tuple[str, ...]
    weights: tuple[StoredWeight, ...]

    @property
    def weight_count(self) -> int:
        """Number of weights (elements)."""
        return sum(weight.size for weight in self.weights)

    @property
    def weight_bytes(self) -> int:
        """Bytes that they occupy, including tables and scales."""
        return sum(weight.bytes for weight in self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight."""
        return bits_per_weight(self.weight_bytes, self.weights)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["weights"] = [weight.to_dict() for weight in self.weights]
        totals = {name: getattr(self, name) for name in ("weight_count", "weight_bytes", "bits_per_weight")}
        return values | {"functions": list(self.functions)} | totals

    def to_json(self) -> str:
        """As strict JSON."""
        return to_json(self.to_dict())

    @property
    def heading(self) -> str:
        """What the model is, in a few lines."""
        raise NotImplementedError

    @property
    def totals(self) -> str:
        """The totals in one line."""
        return (
            f"{len(self.weights)} constants, {self.weight_count} weights, {format_bytes(self.weight_bytes)}, "
            f"{self.bits_per_weight:.2f} bits/weight"
        )

    def __str__(self) -> str:
        return f"{self.heading}\n\n{render(_COLUMNS, self.weights)}\n{self.totals}"

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.source}: {len(self.weights)} constants, "
            f"{self.bits_per_weight:.3f} bits/weight>"
        )


_COLUMNS = (
    *IDENTITY_COLUMNS,
    Column("type", lambda weight: weight.dtype),
    Column("stored as", lambda weight: weight.storage),
    Column("bits", lambda weight: f"{weight.bits_per_weight:.2f}", right=True),
    Column("bytes", lambda weight: format_bytes(weight.bytes), right=True),
)
