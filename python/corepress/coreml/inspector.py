"""How the weights of a package are stored, without reading them."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..engine.inspection import StoredModel, StoredWeight
from ..paths import StrPath
from ..reporting.tables import format_bytes
from ..sources import unchanged
from .format.package import Package
from .format.values import ValueReader
from .program.program import Program
from .program.weights import check_stored, visible_weights


@dataclass(frozen=True, repr=False, kw_only=True)
class Inspection(StoredModel):
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

    specification_version: int
    weight_files: dict[str, int]
    package_bytes: int

    @property
    def heading(self) -> str:
        """What the package is, in a few lines."""
        files = ", ".join(f"{name} ({format_bytes(size)})" for name, size in self.weight_files.items()) or "none"
        functions = f"functions: {', '.join(self.functions)}\n" if self.functions else ""
        version = f"specification version: {self.specification_version}"
        return f"{self.source}\n{version}\n{functions}weight files: {files}"


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
        weights=tuple(StoredWeight.of(weight, len(weight.definitions)) for weight in weights),
    )
