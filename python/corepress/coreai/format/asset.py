"""Core AI assets, the ``.aimodel`` directories."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import FormatError
from ...paths import user_path
from ...sources import FileState, changed_error
from .bytecode import Bytecode

METADATA, PROGRAM, HASH = "metadata.json", "main.mlirb", "main.hash"
SUFFIX = ".aimodel"
ASSET_VERSION = "2.0"
_METADATA_LIMIT = 1 << 20
_PIECE = 1 << 22


def is_asset(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of an asset: a directory with a program, or with the suffix ``.aimodel``."""
    path = user_path(path)
    return path.is_dir() and (path.suffix == SUFFIX or (path / PROGRAM).is_file())


@dataclass(frozen=True)
class Asset:
    """An ``.aimodel`` that is only ever read.

    Attributes
    ----------
    root : pathlib.Path
        The asset's directory, with symbolic links resolved.
    program_path : pathlib.Path
        Its program, the file ``main.mlirb``.
    metadata : dict
        The content of ``metadata.json``, empty if there is none.
    bytecode : Bytecode
        The sections of its program, and where its weights are.
    """

    root: Path
    metadata: dict[str, Any]
    bytecode: Bytecode = field(repr=False, compare=False)
    states: dict[str, FileState] = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Asset:
        """Check the files of an asset.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        FormatError
            If it is no asset, is damaged or cut off, or its version is not known.
        """
        path = user_path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such asset")
        if not path.is_dir():
            raise FormatError(f"{path}: a single file; Core AI's assets are {SUFFIX} directories")
        root = path.resolve()
        if not os.path.lexists(root / PROGRAM):
            what = "is a Core AI asset that" if path.suffix == SUFFIX else f"is not an {SUFFIX}, it"
            raise FormatError(f"{path}: {what} has no file {PROGRAM}")
        states = _states(root)
        metadata = _read_metadata(root / METADATA)
        _require_regular(root / PROGRAM)
        return cls(root, metadata, Bytecode(root / PROGRAM), states)

    @property
    def program_path(self) -> Path:
        """Its program."""
        return self.root / PROGRAM

    @property
    def size(self) -> int:
        """Bytes of all files in the asset."""
        return sum(state.size for state in _states(self.root).values())

    @cached_property
    def has_right_hash(self) -> bool:
        """Whether the file ``main.hash`` is there and holds the SHA-256 of the program."""
        path = self.root / HASH
        return path.is_file() and path.read_bytes() == self.bytecode.digest()

    def require_unchanged(self) -> None:
        """Raise `SourceChangedError` if a file changed since the asset was opened."""
        now = _states(self.root)
        for name in (*self.states, *now):
            if now.get(name) != self.states.get(name):
                raise changed_error(self.root / name)


def digest_of(path: Path) -> bytes:
    """The SHA-256 of a file, which is read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.digest()


def _states(root: Path) -> dict[str, FileState]:
    states = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            try:
                states[os.path.relpath(path, root)] = FileState.of(os.stat(path))
            except OSError:
                continue
    return states


def _require_regular(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise FormatError(f"{path}: is not a file")


def _read_metadata(path: Path) -> dict[str, Any]:
    if not os.path.lexists(path):
        return {}
    _require_regular(path)
    if path.stat().st_size > _METADATA_LIMIT:
        raise FormatError(f"{path}: {path.stat().st_size} bytes, but metadata has at most {_METADATA_LIMIT}")
    try:
        metadata = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise FormatError(f"{path}: must be a JSON object")
    if metadata.get("assetVersion") != ASSET_VERSION:
        raise FormatError(f"{path}: assetVersion must be {ASSET_VERSION!r}, not {metadata.get('assetVersion')!r}")
    return metadata
