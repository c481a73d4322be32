"""Opens models of all formats for an allocation."""

from __future__ import annotations

from ..coreai.format.asset import is_asset
from ..coreml.opened import OpenedPackage
from ..engine.opened import OpenedModel
from ..paths import StrPath


def open_model(src: StrPath) -> OpenedModel:
    """Open a model.

    Raises
    ------
    FileNotFoundError, FormatError
        If there is none, or it is damaged.
    """
    if is_asset(src):
        from ..coreai.opened import OpenedAsset

        return OpenedAsset(src)
    return OpenedPackage(src)
