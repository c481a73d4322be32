"""Writing an ``.mlpackage`` so that it appears under its name only when it is whole."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

from ..errors import FormatError
from .package import MANIFEST, Package, directory_size
from .weight_file import WeightFileWriter


class PackageWriter:
    """Builds an edited copy of a package in a hidden sibling of the destination.

    Use it as a context manager: write edited files to `path(...)`, then call `finish`, which copies everything else and
    renames the directory into place. Leaving without `finish`, for whatever reason, removes what was built.

    Parameters
    ----------
    source : Package
        Package to copy from.
    destination : path-like
        Where the new package goes; must end in ``.mlpackage``.
    overwrite : bool
        Replace an existing package.
    """

    def __init__(self, source: Package, destination: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.source = source
        self.destination = Path(destination)
        self.overwrite = overwrite
        self._check_destination()

    def _check_destination(self) -> None:
        destination = self.destination
        if destination.suffix != ".mlpackage":
            raise ValueError(f"destination {destination} must end in .mlpackage")
        if not destination.parent.is_dir():
            raise FileNotFoundError(f"destination {destination}: there is no directory {destination.parent}")
        resolved, root = destination.resolve(), self.source.root
        same = destination.exists() and destination.samefile(root)
        if same or resolved.is_relative_to(root) or root.is_relative_to(resolved):
            raise ValueError(f"destination {destination} must not be, contain or be inside the source {root}")
        if os.path.lexists(destination):
            if not self.overwrite:
                raise FileExistsError(f"destination {destination} exists; pass overwrite=True to replace it")
            if destination.is_dir() and any(destination.iterdir()) and not (destination / MANIFEST).is_file():
                raise ValueError(f"destination {destination} is a directory but not a package; it is not overwritten")

    def __enter__(self) -> PackageWriter:
        parent, name = self.destination.absolute().parent, self.destination.name
        # The name is known before the directory exists, so that an interrupt at any moment finds what to remove.
        self._temporary = parent / f".{name}.{os.urandom(8).hex()}.partial"
        self._built = self._temporary / name
        try:
            self._temporary.mkdir(mode=0o700)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.destination)) from error
        except BaseException:
            self._remove()
            raise
        return self

    def path(self, source_path: Path) -> Path:
        """Where the edited form of a source file is to be written; its directory exists then."""
        path = self._built / source_path.relative_to(self.source.root)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def weight_file(self, source_path: Path) -> WeightFileWriter:
        """A writer of the edited form of a weight file."""
        return WeightFileWriter(self.path(source_path))

    def write_model(self, data: bytes) -> None:
        """Write the edited model file."""
        path = self.path(self.source.model_path)
        path.write_bytes(data)
        sync(path)

    @property
    def built_size(self) -> int:
        """Bytes of all files of the finished package."""
        return directory_size(self.destination)

    def finish(self) -> None:
        """Copy what was not written, wait for the disk, and rename the package into place."""
        self._copy_rest()
        self._check_destination()
        replaced = self._temporary / "replaced"
        try:
            if os.path.lexists(self.destination):
                os.rename(self.destination, replaced)
            os.rename(self._built, self.destination)
        except BaseException:
            if os.path.lexists(replaced) and not os.path.lexists(self.destination):
                os.rename(replaced, self.destination)
            raise
        sync(self.destination.absolute().parent)

    def _copy_rest(self) -> None:
        root = self.source.root
        for folder, folder_names, file_names in os.walk(root, topdown=False, onerror=_raise):
            target_folder = self._built / os.path.relpath(folder, root)
            target_folder.mkdir(parents=True, exist_ok=True)
            for name in (*file_names, *folder_names):
                source, target = Path(folder, name), target_folder / name
                if source.is_symlink():
                    self._copy_link(source, target)
                elif source.is_file():
                    if not target.exists():
                        shutil.copyfile(source, target)
                    shutil.copymode(source, target)
                    sync(target)
                elif not source.is_dir():
                    raise FormatError(f"{source}: neither a file nor a directory")
            # A directory that its owner cannot write could not be renamed.
            target_folder.chmod(stat.S_IMODE(os.stat(folder).st_mode) | stat.S_IRWXU)
            sync(target_folder)

    def _copy_link(self, source: Path, target: Path) -> None:
        # A link is kept only where it means the same inside the copy: relative, and never leading out.
        text = os.readlink(source)
        try:
            inside = source.resolve().is_relative_to(self.source.root)
        except (OSError, RuntimeError):
            inside = False
        if os.path.isabs(text) or not inside:
            raise FormatError(f"{source}: a symbolic link that leads out of the package, to {text}")
        target.symlink_to(text)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._remove()
        except BaseException:  # another interrupt, say
            self._remove()
            raise

    def _remove(self) -> None:
        for folder, _, _ in os.walk(self._temporary):
            os.chmod(folder, stat.S_IRWXU)
        if self._temporary.exists():
            shutil.rmtree(self._temporary)


def _raise(error: OSError) -> None:
    raise error


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows does not open directories
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
