"""Writing an ``.aimodel`` so that it appears under its name only when it is complete."""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path

from ... import system
from ...errors import FormatError
from ...outputs import FolderWriter
from ...overlap import both
from .asset import ASSET_VERSION, HASH, METADATA, PROGRAM, SUFFIX, Asset, digest_of

NO_METADATA = json.dumps({"assetVersion": ASSET_VERSION})  # of an asset without
HASH_SIZE = 32


class AssetWriter(FolderWriter):
    """Builds an edited copy of an asset in a hidden sibling of the destination.

    Use it as a context manager: write the edited program to `program_path`, then call `finish`, which adds everything
    else and renames the directory into place. Leaving without `finish`, for any reason, removes the unfinished copy.
    The metadata is left unchanged, the date of creation too, so that equal inputs give equal bytes.

    Parameters
    ----------
    source : Asset
        Asset to copy from.
    destination : path-like
        Where the new asset goes; must end in ``.aimodel``.
    overwrite : bool
        Replace an existing asset.

    Raises
    ------
    ValueError
        If the destination cannot be that of an asset, or is the source or in it.
    FileExistsError
        If there is something at the destination, and `overwrite` is false.
    """

    kind, suffix, marker = "an asset", SUFFIX, PROGRAM

    def __init__(self, source: Asset, destination: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(source.root, destination, overwrite=overwrite)
        self.source = source

    @property
    def program_path(self) -> Path:
        """Where the edited program is to be written."""
        return self.built / PROGRAM

    @property
    def built_size(self) -> int:
        """Bytes of all files of the finished asset."""
        return sum(each.stat().st_size for each in self.destination.rglob("*") if each.is_file())

    def finish(self) -> None:
        """Write the program's hash, copy all other files, flush to the disk, and rename the asset into place.

        Raises
        ------
        SourceChangedError
            If a file of the source changed after the asset was opened.
        """
        if not self.program_path.is_file():
            raise RuntimeError(f"destination {self.destination}: no program was written")
        # The disk works while the hash is computed.
        digest, _ = both(partial(digest_of, self.program_path), partial(system.current.sync, self.program_path))
        (self.built / HASH).write_bytes(digest)
        metadata = self.source.root / METADATA
        if not metadata.is_file():
            (self.built / METADATA).write_text(NO_METADATA, encoding="utf-8")
        self._copy_rest()
        self.source.require_unchanged()
        self.put_in_place()

    def _copy_rest(self) -> None:
        root, mode = self.source.root, self.mode
        for folder, _, names in os.walk(root, topdown=False):
            target_folder = self.built / os.path.relpath(folder, root)
            target_folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                source, target = Path(folder, name), target_folder / name
                if not stat.S_ISREG(source.stat().st_mode):
                    raise FormatError(f"{source}: neither a file nor a directory")
                if not target.exists():
                    system.current.copy_file(source, target)
                target.chmod(source.stat().st_mode & mode & 0o666)
        for folder, _, names in os.walk(self.built, topdown=False):
            for name in (*names, "."):
                system.current.sync(Path(folder, name))
