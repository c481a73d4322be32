"""What the entry point needs to know about a run to report a failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Session:
    """One run of the command line.

    Attributes
    ----------
    command : str
        The command as it was typed: ``corepress palettize``.
    debug : bool
        Whether errors are shown with their traceback.
    flags : dict of str to str
        The command's flags, by the parameters that they set.
    """

    command: str = "corepress"
    debug: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)
