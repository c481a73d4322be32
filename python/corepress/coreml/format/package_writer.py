"""Writing an ``.mlpackage`` so that it appears under its name only when it is complete."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ... import system
from ...errors import FormatError
from ...outputs import FolderWriter
from ...sources import MANIFEST
from .package import Package, directory_size, place_of, require_regular
from .weight_file import WeightFileWriter


class PackageWriter(FolderWriter):
    """Builds an edited copy of a package in a hidden sibling of the destination.

    Use it as a context manager: write edited files to `path(...)`, then call `finish`, which copies everything else and
    renames the directory into place. Leaving without `finish`, for any reason, removes the unfinished copy.

    Parameters
    ----------
    source : Package
        Package to copy from.
    destination : path-like
        Where the new package goes; must end in ``.mlpackage``.
    overwrite : bool
        Replace an existing package.
    """

    kind, suffix, marker = "a package", ".mlpackage", MANIFEST

    def __init__(self, source: Package, destination: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        super().__init__(source.root, destination, overwrite=overwrite)
        self.source = source

    def path(self, source_path: Path) -> Path:
        """Where the edited form of a source file is to be written; its directory exists then."""
        path = self.built / source_path.relative_to(self.source.root)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def weight_file(self, source_path: Path) -> WeightFileWriter:
        """A writer of the edited form of a weight file."""
        return WeightFileWriter(self.path(source_path))

    def write_model(self, data: bytes) -> None:
        """Write the edited model file."""
        path = self.path(self.source.model_path)
        path.write_bytes(data)
        system.current.sync(path)

    @property
    def built_size(self) -> int:
        """Bytes of all files of the finished package."""
        return directory_size(self.destination)

    def finish(self) -> None:
        """Copy all files that were not written, flush to the disk, and rename the package into place.

        Raises
        ------
        SourceChangedError
            If a file of the source changed after the package was opened.
        """
        self._copy_rest()
        self.source.snapshot.require_unchanged()
        self.put_in_place()

    def _copy_rest(self) -> None:
        root = self.source.root
        for folder, folder_names, file_names in os.walk(root, topdown=False, onerror=_raise):
            target_folder = self.built / os.path.relpath(folder, root)
            target_folder.mkdir(parents=True, exist_ok=True)
            for name in (*file_names, *folder_names):
                source, target = Path(folder, name), target_folder / name
                if source.is_symlink() and self._stays_inside(source):
                    system.current.link_like(source, target)
                elif source.is_symlink() and source.is_dir():
                    raise FormatError(
                        f"{source}: a symbolic link to a folder outside of the package, {os.readlink(source)}; "
                        "copy the package with its links followed"
                    )
                elif not source.is_dir():
                    self._copy_file(source, target)
            # A directory that its owner cannot write could not be renamed.
            target_folder.chmod(self._mode_like(os.stat(folder)) | stat.S_IRWXU)
            system.current.sync(target_folder)

    def _copy_file(self, source: Path, target: Path) -> None:
        require_regular(source)
        if source == self.source.root / MANIFEST:
            target.write_bytes(self.source.manifest)
        elif not target.exists():
            system.current.copy_file(source, target)
        target.chmod(self._mode_like(source.stat()) & 0o777)
        system.current.sync(target)

    def _mode_like(self, source: os.stat_result) -> int:
        """The mode of a copy: as the umask lets a new folder have it, and never set-uid, set-gid or sticky."""
        inherited = self.mode & stat.S_ISGID  # of a destination in a folder whose group its files get
        return source.st_mode & self.mode & 0o777 | inherited

    def _stays_inside(self, link: Path) -> bool:
        """Whether a link leads to the same in a copy of the package: it is relative, and stays inside."""
        if os.path.isabs(os.readlink(link)):
            return False
        try:
            place = place_of(link, self.source.root)
            return place != link or place.resolve().is_relative_to(self.source.root)
        except (OSError, RuntimeError):  # it leads to itself
            return False


def _raise(error: OSError) -> None:
    raise error
