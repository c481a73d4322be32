"""Base classes of per-weight records, and the columns they share."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..reporting.tables import Column, format_bytes
from .position_tables import is_position_table
from .weights import Weight

ALREADY_COMPRESSED = "already compressed"


@dataclass(frozen=True)
class ConstantRecord:
    """One constant.

    Attributes
    ----------
    name, function : str
        Name of the constant and of its function; for shared constants, the first.
    consumers : tuple of str
        Types of the operations that use it.
    shape : tuple of int
        Shape.
    dtype : str
        Element type of the decompressed values.
    """

    name: str
    function: str
    consumers: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def position_table(self) -> bool:
        """Whether it is a rotary table or another position table, judging by its name and consumers."""
        return is_position_table(self.name, self.consumers)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return dataclasses.asdict(self) | {
            "consumers": list(self.consumers),
            "shape": list(self.shape),
            "position_table": self.position_table,
        }


@dataclass(frozen=True)
class ChangeRecord(ConstantRecord):
    """One constant that is stored in a new form, or not; in addition to the attributes of `ConstantRecord`:

    Attributes
    ----------
    status : str
        What is done.
    method : str or None
        How, if something is done.
    reason : str or None
        Why nothing is done.
    planned : bool
        Whether an unchanged constant is of a kind that no config selects: small, a vector, not a float, or already
        compressed.
    bits_per_weight : float
        Stored bits per weight afterwards, including tables and scales.
    bytes_before, bytes_after : int
        Stored bytes, including tables and scales.
    """

    status: str
    method: str | None
    reason: str | None
    planned: bool
    bits_per_weight: float
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class Unchanged:
    """The constants that are left unchanged for one reason.

    Attributes
    ----------
    reason : str
        Why.
    weights : int
        Number of constants.
    bytes : int
        What they occupy.
    planned : bool
        Whether none of them is of a kind that a config selects.
    """

    reason: str
    weights: int
    bytes: int
    planned: bool

    def __str__(self) -> str:
        return (
            f"{self.weights} {'weight' if self.weights == 1 else 'weights'}, {format_bytes(self.bytes)}: {self.reason}"
        )


def unchanged_by_reason(records: Iterable[ChangeRecord]) -> tuple[Unchanged, ...]:
    """The unchanged constants for each reason, the most bytes first."""
    by_reason: dict[str, list[ChangeRecord]] = {}
    for record in records:
        if record.reason is not None:
            by_reason.setdefault(record.reason, []).append(record)
    totals = [
        Unchanged(reason, len(kept), sum(each.bytes_after for each in kept), all(each.planned for each in kept))
        for reason, kept in by_reason.items()
    ]
    return tuple(sorted(totals, key=lambda total: -total.bytes))


def identity(weight: Weight) -> dict[str, Any]:
    """The fields of a `ConstantRecord`."""
    return {
        "name": weight.name,
        "function": weight.function,
        "consumers": weight.consumer_types,
        "shape": weight.shape,
        "dtype": weight.dtype,
    }


def bits_per_weight(nbytes: int, records: Iterable[ConstantRecord]) -> float:
    """Bits per weight if the records' weights take `nbytes` bytes; 0 if there are none."""
    count = sum(record.size for record in records)
    return 8.0 * nbytes / count if count else 0.0


def _used_by(record: ConstantRecord) -> str:
    return (", ".join(record.consumers) or "-") + (" (position table)" if record.position_table else "")


IDENTITY_COLUMNS = (
    Column("weight", lambda record: record.name),
    Column("used by", _used_by),
    Column("shape", lambda record: "x".join(map(str, record.shape))),
)
