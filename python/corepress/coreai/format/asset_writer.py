"""Writing an ``.aimodel`` so that it appears under its name only when it is complete."""

from __future__ import annotations

import json
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ... import system
from ...errors import FormatError
from ...outputs import partial_folder, put_in_place, remove_partials
from ...paths import user_path
from .asset import ASSET_VERSION, HASH, METADATA, PROGRAM, SUFFIX, Asset, digest_of

NO_METADATA = json.dumps({"assetVersion": ASSET_VERSION})  # of an asset without
HASH_SIZE = 32


class AssetWriter:
    """Builds an edited copy of an asset in a hidden sibling of the destination.

    Use it as a context manager: write the edited program to `program_path`, then call `finish`, which adds everything
    else and renames the directory into place. Leaving without `finish`, for any reason, removes the unfinished copy.
    The metadata stays as it is, the date of creation too, so that equal inputs give equal bytes.

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

    def __init__(self, source: Asset, destination: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.source = source
        self.destination = user_path(destination)
        self.overwrite = overwrite
        self._stack = ExitStack()
        remove_partials(self.destination)
        self._check_destination()

    def _check_destination(self) -> None:
        destination, root = self.destination, self.source.root
        if destination.suffix != SUFFIX:
            raise ValueError(f"destination {destination} must end in {SUFFIX}")
        if not destination.parent.is_dir():
            raise FileNotFoundError(f"destination {destination}: there is no directory {destination.parent}")
        if system.current.is_inside(destination, root) or system.current.is_inside(root, destination):
            raise ValueError(f"destination {destination} must not be, contain or be inside the source {root}")
        if os.path.lexists(destination):
            if not self.overwrite:
                raise FileExistsError(f"destination {destination} exists; pass overwrite=True to replace it")
            if destination.is_dir() and any(destination.iterdir()) and not (destination / PROGRAM).is_file():
                raise ValueError(f"destination {destination} is a directory but not an asset; it is not overwritten")

    def __enter__(self) -> AssetWriter:
        try:
            folder = self._stack.enter_context(partial_folder(self.destination.absolute()))
            self._built = folder / self.destination.name
            self._built.mkdir()
        except OSError as error:
            self._stack.close()
            raise OSError(error.errno, error.strerror, str(self.destination)) from error
        except BaseException:
            self._stack.close()
            raise
        return self

    @property
    def program_path(self) -> Path:
        """Where the edited program is to be written."""
        return self._built / PROGRAM

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
        (self._built / HASH).write_bytes(digest_of(self.program_path))
        metadata = self.source.root / METADATA
        if not metadata.is_file():
            (self._built / METADATA).write_text(NO_METADATA, encoding="utf-8")
        self._copy_rest()
        self.source.require_unchanged()
        self._check_destination()
        put_in_place(self._built, self.destination)

    def _copy_rest(self) -> None:
        root, mode = self.source.root, self._built.stat().st_mode
        for folder, _, names in os.walk(root, topdown=False):
            target_folder = self._built / os.path.relpath(folder, root)
            target_folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                source, target = Path(folder, name), target_folder / name
                if not stat.S_ISREG(source.stat().st_mode):
                    raise FormatError(f"{source}: neither a file nor a directory")
                if not target.exists():
                    system.current.copy_file(source, target)
                target.chmod(source.stat().st_mode & mode & 0o666)
        for folder, _, names in os.walk(self._built, topdown=False):
            for name in (*names, "."):
                system.current.sync(Path(folder, name))

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
