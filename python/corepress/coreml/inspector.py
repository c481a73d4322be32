"""How the weights of a package are stored, without reading them."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from math import prod
from typing import Any

from ..engine.records import IDENTITY_COLUMNS, ConstantRecord, bits_per_weight, identity
from ..paths import StrPath
from ..reporting.documents import to_json
from ..reporting.tables import Column, format_bytes, render
from ..sources import unchanged
from .format.package import Package
from .format.values import ValueReader
from .program.program import Program
from .program.weights import Weight, check_stored, visible_weights


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


@dataclass(frozen=True, repr=False)
class Inspection:
    """The contents of a package.

    Attributes
    ----------
    source : str
        The package.
    specification_version : int
        Its specification version.
    functions : tuple of str
        Names of its functions.
    weight_files : dict of str to int
        Weight files by the name that the program uses, and their bytes.
    package_bytes : int
        Bytes of all files of the package.
    weights : tuple of StoredWeight
        One record per constant, in program order.
    """

    source: str
    specification_version: int
    functions: tuple[str, ...]
    weight_files: dict[str, int]
    package_bytes: int
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
        """What the package is, in a few lines."""
        files = ", ".join(f"{name} ({format_bytes(size)})" for name, size in self.weight_files.items()) or "none"
        functions = f"functions: {', '.join(self.functions)}\n" if self.functions else ""
        version = f"specification version: {self.specification_version}"
        return f"{self.source}\n{version}\n{functions}weight files: {files}"

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
        return f"<Inspection {self.source}: {len(self.weights)} constants, {self.bits_per_weight:.3f} bits/weight>"


_COLUMNS = (
    *IDENTITY_COLUMNS,
    Column("type", lambda weight: weight.dtype),
    Column("stored as", lambda weight: weight.storage),
    Column("bits", lambda weight: f"{weight.bits_per_weight:.2f}", right=True),
    Column("bytes", lambda weight: format_bytes(weight.bytes), right=True),
)


@unchanged("src")
def inspect(src: StrPath) -> Inspection:
    """Show how the weights of an ``.mlpackage`` are stored.

    Parameters
    ----------
    src : path-like
        The package.

    Returns
    -------
    Inspection
        One record per weight, and totals.

    Raises
    ------
    FormatError
        If the package is damaged.
    """
    package = Package.open(src)
    program = Program(package)
    weights = visible_weights(program)
    with ValueReader(package) as values:
        check_stored(weights, values)
    return Inspection(
        source=os.fspath(src),
        specification_version=program.specification_version,
        functions=program.functions,
        weight_files={name: path.stat().st_size for name, path in sorted(program.file_names.items())},
        package_bytes=package.size,
        weights=tuple(map(_stored_weight, weights)),
    )


def _stored_weight(weight: Weight) -> StoredWeight:
    size = weight.stored_bytes
    return StoredWeight(
        **identity(weight),
        storage=weight.storage,
        bits_per_weight=8.0 * size / max(1, prod(weight.first.shape)),
        bytes=size,
        shared_by=len(weight.definitions),
    )
