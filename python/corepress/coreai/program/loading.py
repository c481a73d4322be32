"""Reading programs with Core AI's library, which ends the process at most damage instead of raising an error."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

from ...errors import FormatError
from ...overlap import both
from ..format.asset import Asset
from .modules import authoring

# Reading a larger program to compute its hash takes longer than another process that loads it.
_MOST_HASHED = 1 << 28
_TRIAL = """
import sys
from pathlib import Path
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
from coreai.authoring import AIProgram, Context
AIProgram._load_bytecode(Path(sys.argv[1]), context=Context()._mlir_context)
"""


def load_program(asset: Asset) -> Any:
    """Read the program of an asset; its weights remain in the file.

    A program whose hash is that which the asset gives was written by Core AI's library and is read here. Another one
    is first read by a separate process, which damage may end.

    Raises
    ------
    FormatError
        If it cannot be read.
    """
    # Importing the library takes as long as reading some hundred megabytes.
    is_as_written, library = both(partial(_is_as_written, asset), authoring)
    if not is_as_written:
        _try(asset)
    try:
        return library.AIProgram._load_bytecode(asset.program_path, context=library.Context()._mlir_context)
    except Exception as error:
        raise FormatError(f"{asset.program_path}: Core AI's library cannot read it: {error}") from error


def _is_as_written(asset: Asset) -> bool:
    return asset.bytecode.size <= _MOST_HASHED and asset.has_right_hash


def _try(asset: Asset) -> None:
    if not sys.executable:
        return
    command = [sys.executable, "-c", _TRIAL, str(asset.program_path)]
    found = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    if found.returncode != 0:
        lines = found.stderr.decode("utf-8", "replace").strip().splitlines()
        said = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
        raise FormatError(f"{asset.program_path}: is damaged: Core AI's library cannot read it ({said.strip()[:200]})")
