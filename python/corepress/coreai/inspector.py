"""How the weights of an asset are stored."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..engine.inspection import StoredModel, StoredWeight
from ..paths import StrPath
from ..reporting.tables import format_bytes
from ..sources import unchanged
from .format.asset import ASSET_VERSION, Asset
from .program.program import Program


@dataclass(frozen=True, repr=False, kw_only=True)
class AssetInspection(StoredModel):
    """The contents of an asset.

    Attributes
    ----------
    source : str
        The asset.
    asset_version : str
        Version of its format.
    producer : str or None
        What made it, as its metadata say.
    functions : tuple of str
        Names of its functions.
    asset_bytes : int
        Bytes of all files of the asset.
    weights : tuple of StoredWeight
        One record per constant, in program order.
    """

    asset_version: str
    producer: str | None
    asset_bytes: int

    @property
    def heading(self) -> str:
        """What the asset is, in a few lines."""
        producer = "" if self.producer is None else f", made by {self.producer}"
        functions = f"functions: {', '.join(self.functions)}"
        size = format_bytes(self.asset_bytes)
        return f"{self.source}\nasset version: {self.asset_version}{producer}; {size}\n{functions}"


@unchanged("src")
def inspect(src: StrPath) -> AssetInspection:
    """Show how the weights of an ``.aimodel`` are stored, without reading them.

    Parameters
    ----------
    src : path-like
        The asset.

    Returns
    -------
    AssetInspection
        One record per weight, and totals.

    Raises
    ------
    FormatError
        If the asset is damaged.
    MissingExtraError
        If coreai-core is not installed.
    """
    asset = Asset.open(src)
    program = Program(asset)
    producer = asset.metadata.get("producer")
    return AssetInspection(
        source=os.fspath(src),
        asset_version=asset.metadata.get("assetVersion", ASSET_VERSION),
        producer=producer if isinstance(producer, str) else None,
        functions=program.function_names,
        asset_bytes=asset.size,
        weights=tuple(StoredWeight.of(weight, len(weight.places)) for weight in program.weights),
    )
