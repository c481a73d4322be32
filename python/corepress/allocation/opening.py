"""Opens models of all formats for an allocation."""

from __future__ import annotations

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
    return OpenedPackage(src)
