"""Reading an ``.mlpackage`` directory: its manifest, its model file, and the files that the model refers to."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ... import system
from ...errors import FormatError
from ...paths import user_path
from ...sources import MANIFEST, Snapshot
from .kinds import refuse_foreign, refuse_pointer

_MANIFEST_LIMIT = 1 << 24  # bytes; those that tools write have less than 2,000
_NEWEST_VERSION = (1, 0, 0)
_MODEL_DIRECTORY = "@model_path"
_MOST_LINKS = 40  # one after another, as systems follow them


def _manifest_bytes(path: Path) -> bytes:
    if not os.path.lexists(path) or path.is_dir():
        raise FormatError(f"{path.parent}: not an .mlpackage, it has no file {MANIFEST}")
    require_regular(path)
    size = path.stat().st_size
    if size > _MANIFEST_LIMIT:
        raise FormatError(f"{path}: {size} bytes, but a manifest has at most {_MANIFEST_LIMIT}")
    refuse_pointer(path)
    return path.read_bytes()


def _parsed_manifest(path: Path, data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
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
                raise FormatError(f"{path}: item {identifier!r} must have a string {key!r}")
    return str(items[root]["path"])


@dataclass(frozen=True)
class Package:
    """An ``.mlpackage`` that is only ever read.

    Its files may be symbolic links to regular files anywhere, as model hubs and version-control systems leave them;
    they are read as what they link to, as coremltools reads them. Names in the manifest and the program must stay
    inside the package, and a link to anything but a regular file or a folder of the package is refused. A package
    from a source that is not trusted can thus link to any file its reader may read, and a copy of the package then
    holds a copy of that file, as after ``cp -rL``.

    Attributes
    ----------
    root : pathlib.Path
        The package directory, with symbolic links resolved.
    model_path : pathlib.Path
        The model file that the manifest names as root, with symbolic links resolved that stay in the package.
    model_directory : pathlib.Path
        The folder that holds the model file; references to other files are relative to it.
    manifest : bytes
        The content of the manifest.
    snapshot : Snapshot
        The state of its files when it was opened.
    """

    root: Path
    model_path: Path
    model_directory: Path
    manifest: bytes = field(repr=False)
    snapshot: Snapshot = field(repr=False, compare=False)

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
        path = user_path(path)
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
        snapshot = Snapshot(root)
        data = _manifest_bytes(manifest_path)
        item = _root_item_path(manifest_path, _parsed_manifest(manifest_path, data))
        model_path = _inside(root, root / "Data", item, manifest_path)
        return cls(root, model_path, (root / "Data" / item).parent, data, snapshot)

    def locate(self, file_name: str) -> Path:
        """The file that a program refers to by, for example, ``@model_path/weights/weight.bin``."""
        prefix, _, name = file_name.partition("/")
        if prefix != _MODEL_DIRECTORY:
            raise FormatError(f"{self.model_path}: file name {file_name!r} must start with {_MODEL_DIRECTORY}/")
        path = _inside(self.root, self.model_directory, name, self.model_path)
        if path in (self.model_path, place_of(self.root / MANIFEST, self.root)):
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
    for part in relative.parts:
        if not system.current.is_name(part):
            raise FormatError(f"{named_by}: path {name!r} has the part {part!r}, which cannot name a file here")
    path, link = base / relative, None
    try:
        link = os.readlink(path) if path.is_symlink() else None
        path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        missing = f"a symbolic link to {link}, which does not exist" if link else "which does not exist"
        raise FormatError(f"{named_by}: names {name!r}, {missing}") from error
    if not path.parent.resolve().is_relative_to(root):
        raise FormatError(f"{named_by}: names {name!r}, in a folder that a symbolic link leads out of the package")
    if path.is_dir():
        raise FormatError(f"{named_by}: names {name!r}, which is not a file")
    require_regular(path)
    refuse_pointer(path)
    return place_of(path, root)


def require_regular(path: Path) -> None:
    """FormatError unless a path leads to a regular file on a disk: others may never end or have no contents."""
    real = os.path.realpath(path)
    is_link = path.is_symlink()
    if is_link and not os.path.exists(real):
        raise FormatError(
            f"{path}: a symbolic link to {os.readlink(path)}, which does not exist; "
            "fetch the file it points to, or copy the package with its links followed"
        )
    if not stat.S_ISREG(os.stat(real).st_mode) or (is_link and real.startswith(system.current.device_folders)):
        raise FormatError(f"{path}: {f'a symbolic link to {real}, ' if is_link else ''}neither a file nor a directory")


def place_of(path: Path, root: Path) -> Path:
    """The path of a file in a package, following symbolic links as long as they stay inside."""
    place = path.parent.resolve() / path.name
    for _ in range(_MOST_LINKS):
        if not place.is_symlink():
            break
        target = place.parent / os.readlink(place)
        target = target.parent.resolve() / target.name
        if not target.is_relative_to(root):
            break
        place = target
    return place


def directory_size(root: Path) -> int:
    """Bytes of all files below a directory; for links to files, those of their targets."""
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)
    return sum(os.stat(path).st_size if os.path.exists(path) else os.lstat(path).st_size for path in paths)
