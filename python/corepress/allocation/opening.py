"""Models of all formats: opening them, and the functions for them."""

from __future__ import annotations

from types import ModuleType

from .. import coreai, coreml
from ..coreai.format.asset import is_asset
from ..coreai.opened import OpenedAsset
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
        return OpenedAsset(src)
    return OpenedPackage(src)


def format_of(src: StrPath) -> ModuleType:
    """The room with the functions for a model: `corepress.coreai` for assets, otherwise `corepress.coreml`."""
    return coreai if is_asset(src) else coreml
