"""Paths as users type them."""

from __future__ import annotations

import os
from pathlib import Path

StrPath = str | os.PathLike[str]


def user_path(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ``~`` or ``~user`` replaced by that home folder, as coremltools and shells do."""
    return Path(os.path.expanduser(path))
