"""Which room of corepress a source belongs to; the kind of file decides."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import click


def is_asset(source: Path) -> bool:
    """Whether a source is a Core AI asset."""
    from ..coreai.format.asset import is_asset

    return is_asset(source)


def format_of(source: Path) -> ModuleType:
    """`corepress.coreai` for assets, otherwise `corepress.coreml`."""
    from .. import coreai, coreml

    return coreai if is_asset(source) else coreml


def compressor_of(source: Path) -> ModuleType:
    """The module that compresses with what was chosen for a target."""
    if is_asset(source):
        from ..coreai import compressor as for_assets

        return for_assets
    from ..coreml import compressor

    return compressor


def refuse_asset(source: Path, what: Any) -> None:
    """Raise the usage error for an option or a command that is not for assets."""
    if is_asset(source):
        raise click.UsageError(f"{what} is for packages (.mlpackage); {source.name} is a Core AI asset")
