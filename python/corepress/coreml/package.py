"""Reading an ``.mlpackage`` directory: its manifest, its model file, and the files that the model refers to."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import FormatError
from .kinds import refuse_foreign, refuse_pointer

MANIFEST = "Manifest.json"
_MANIFEST_LIMIT = 1 << 24  # bytes; those that tools write have less than 2,000
_NEWEST_VERSION = (1, 0, 0)
_MODEL_DIRECTORY = "@model_path"


def _read_manifest(path: Path) -> dict[str, Any]:
    # A link out of the package is no part of it, and a device or pipe need never end.
    if not path.is_file() or not path.resolve().is_relative_to(path.parent):
        raise FormatError(f"{path.parent}: not an .mlpackage, it has no file {MANIFEST}")
    size = path.stat().st_size
    if size > _MANIFEST_LIMIT:
        raise FormatError(f"{path}: {size} bytes, but a manifest has at most {_MANIFEST_LIMIT}")
    refuse_pointer(path)
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(manifest, dict):
        raise FormatError(f"{path}: must be a JSON object")
    version = manifest.get("fileFormatVersion")
    parts = version.split(".") if isinstance(version, str) else []
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise FormatError(f"{path}: fileFormatVersion must be three numbers, not {version!r}")
    if tuple(map(int, parts)) > _NEWEST_VERSION:
        raise FormatError(f"{path}: fileFormatVersion {version} is newer than 1.0.0")
    return manifest


def _root_item_path(path: Path, manifest: dict[str, Any]) -> str:
    items, root = manifest.get("itemInfoEntries"), manifest.get("rootModelIdentifier")
    if not isinstance(items, dict) or not isinstance(root, str) or root not in items:
        raise FormatError(f"{path}: rootModelIdentifier {root!r} must be a key of itemInfoEntries")
    for identifier, item in items.items():
        for key in ("path", "name", "author", "description"):
            if not isinstance(item, dict) or not isinstance(item.get(key), str):
                raise FormatError(f"{path}: item {identifier!r} must have a text {key!r}")
    return str(items[root]["path"])


@dataclass(frozen=True)
class Package:
    """An ``.mlpackage`` that is only ever read.

    Attributes
    ----------
    root : pathlib.Path
        The package directory, with symbolic links resolved.
    model_path : pathlib.Path
        The model file that the manifest names as root, with symbolic links resolved.
    model_directory : pathlib.Path
        The folder that holds the model file; references to other files are relative to it.
    """

    root: Path
    model_path: Path
    model_directory: Path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Package:
        """Find the model of a package.

        Raises
        ------
        FileNotFoundError
            If there is nothing at `path`.
        ValueError
            If it is a single model file instead of a package.
        FormatError
            If it is of another kind, or the package is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such package")
        refuse_foreign(path)
        if not path.is_dir():
            raise ValueError(
                f"{path}: a single file; only .mlpackage directories, which hold ML programs, can be used "
                "here (corepress.neural_network is for .mlmodel files)"
            )
        root = path.resolve()
        manifest_path = root / MANIFEST
        item = _root_item_path(manifest_path, _read_manifest(manifest_path))
        return cls(root, _inside(root, root / "Data", item, manifest_path), (root / "Data" / item).parent)

    def locate(self, file_name: str) -> Path:
        """The file that a program means by, for example, ``@model_path/weights/weight.bin``."""
        prefix, _, name = file_name.partition("/")
        if prefix != _MODEL_DIRECTORY:
            raise FormatError(f"{self.model_path}: file name {file_name!r} must start with {_MODEL_DIRECTORY}/")
        path = _inside(self.root, self.model_directory, name, self.model_path)
        if path in (self.model_path, (self.root / MANIFEST).resolve()):
            raise FormatError(f"{self.model_path}: file name {file_name!r} is not that of a weight file")
        return path

    @property
    def size(self) -> int:
        """Bytes of all files in the package."""
        return directory_size(self.root)


def _inside(root: Path, base: Path, name: str, named_by: Path) -> Path:
    """Resolve a file name relative to `base`; it must be a file inside `root`."""
    relative = PurePosixPath(name)
    if "\0" in name or "\\" in name or not relative.parts or relative.is_absolute() or ".." in relative.parts:
        raise FormatError(f"{named_by}: path {name!r} must be relative and stay inside the package")
    try:
        path = (base / relative).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError(f"{named_by}: names {name!r}, which does not exist") from error
    if not path.is_relative_to(root):
        raise FormatError(f"{named_by}: names {name!r}, which leads out of the package to {path}")
    if not path.is_file():
        raise FormatError(f"{named_by}: names {name!r}, which is not a file")
    refuse_pointer(path)
    return path


def directory_size(root: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(root) for name in names)
