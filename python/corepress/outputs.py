"""Output files and folders, written as by a careful Unix tool: completely or not at all, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from . import system
from .paths import user_path

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_WRITTEN, _REPLACED, _LOCK = "written", "replaced", "lock"  # in a partial folder
_log = logging.getLogger("corepress")
_Writer = TypeVar("_Writer", bound="FolderWriter")


def write_output(path: str | os.PathLike[str], content: str | bytes | Iterable[bytes]) -> None:
    """Write a file that appears only when it is complete.

    An existing file keeps its mode; a new one follows the umask. A symbolic link is followed, and devices, pipes and
    names of open files (``/dev/stdout``) are written to instead of replaced.

    Parameters
    ----------
    path : path-like
        The file.
    content : str, bytes or iterable of bytes
        What to write; text is encoded in UTF-8.
    """
    if isinstance(content, str):
        content = content.encode()
    pieces = (content,) if isinstance(content, bytes) else content
    if _is_written_through(path):
        with open(path, "ab", buffering=0) as file:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
        return
    target = Path(os.path.realpath(path))
    remove_partials(target)
    mode = stat.S_IMODE(target.stat().st_mode) & 0o777 if target.exists() else None
    with partial_folder(target) as folder:
        built = folder / _WRITTEN
        with open(built, "xb") as opened:
            opened.writelines(pieces)
            opened.flush()
            system.current.flush(opened.fileno())
        if mode is not None:
            built.chmod(mode)
        system.current.replace(built, target)
    system.current.sync(target.parent)


def _is_written_through(path: str | os.PathLike[str]) -> bool:
    absolute = os.path.abspath(path)
    if absolute.startswith(system.current.device_folders):
        return True
    try:
        return not stat.S_ISREG(os.stat(absolute).st_mode)
    except FileNotFoundError:
        return False


def output_obstacle(path: Path, sources: Iterable[Path], result: Path | None) -> str | None:
    """A short reason why a file must not be written; None if it may be.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    sources : iterable of pathlib.Path
        Models that are read: neither these nor anything in them may be written.
    result : pathlib.Path or None
        The model that the same run writes.
    """
    resolved = Path(os.path.realpath(path))
    if path.is_dir():
        return "is a directory"
    for source in sources:
        if system.current.is_inside(path, source):
            return f"is {source} or inside it, which is only read"
    if result is not None and system.current.is_inside(path, result):
        return f"is {result} or inside it, which is the result"
    if _is_written_through(path):
        return None if os.access(path, os.W_OK) else "cannot be written to"
    if not resolved.parent.is_dir():
        return f"is in the folder {resolved.parent}, which does not exist"
    if not os.access(resolved.parent, os.W_OK | os.X_OK):
        return f"is in the folder {resolved.parent}, which cannot be written to"
    return None


def partial_path(target: Path) -> Path:
    """A new name, in the same folder, for a file that will be renamed to `target`."""
    return target.parent / f".{target.name}.{os.urandom(8).hex()}.partial"


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder in which `target` is built, removed at the end; later runs find it if this one is killed.

    A lock on a file in it shows that its run is alive, whatever its process or machine.
    """
    descriptor = None
    # The name is known before the folder exists, so that an interrupt at any moment finds what to remove.
    path = partial_path(target)
    try:
        while descriptor is None:
            path.mkdir(mode=0o700)
            descriptor, is_ours = _opened_lock(path)
            if is_ours is False:  # another run took it for a dead one's
                if descriptor is not None:
                    os.close(descriptor)
                descriptor, path = None, partial_path(target)
        yield path
    finally:
        try:
            if descriptor is not None and not system.current.removes_open_files:
                os.close(descriptor)
                descriptor = None
            try:
                system.current.remove_tree(path)
            except BaseException:  # another interrupt, say
                system.current.remove_tree(path)
                raise
        finally:
            if descriptor is not None:
                os.close(descriptor)


def _opened_lock(folder: Path) -> tuple[int | None, bool | None]:
    """A descriptor of a folder's lock, None if the folder is gone; and whether the lock is ours, None without locks."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except FileNotFoundError:
        return None, False
    is_ours = system.current.lock(descriptor)
    return descriptor, is_ours if path.exists() else False


def remove_partials(target: Path) -> None:
    """Remove what killed runs left next to `target`, and restore a target that one of them had moved away.

    Folders of running processes and of other users are left alone, as is anything in them that no such run made.
    """
    folder = Path(os.path.abspath(target)).parent
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if (found := _PARTIAL.fullmatch(name)) and found[1] == target.name]
        for name in names:
            _remove_partial(folder / name, target)


def _remove_partial(path: Path, target: Path) -> None:
    descriptor = None
    try:
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode) or not system.current.owns(found) or not _is_partial(path, target):
            return
        descriptor, is_dead = _opened_lock(path)
        if is_dead is not True or not _is_partial(path, target):
            return
        replaced = path / _REPLACED
        if os.path.lexists(replaced) and not os.path.lexists(target):
            system.current.rename(replaced, target)
            system.current.sync(target.absolute().parent)
            _log.warning("%s: restored; the run that was replacing it was killed", target)
        if descriptor is not None and not system.current.removes_open_files:
            os.close(descriptor)
            descriptor = None
        system.current.remove_tree(path)
        _log.warning("%s: removed; it was left behind by a run that was killed", path)
    except OSError:
        pass  # another run removed it first
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _is_partial(path: Path, target: Path) -> bool:
    return set(os.listdir(path)) <= {target.name, _WRITTEN, _REPLACED, _LOCK}


def put_in_place(built: Path, destination: Path) -> None:
    """Rename a folder to `destination`; an existing one moves into the folder of `built`, if possible atomically."""
    if not os.path.lexists(destination):
        system.current.rename(built, destination)
    elif not system.current.exchange(built, destination):
        replaced = built.parent / _REPLACED
        system.current.rename(destination, replaced)
        try:
            system.current.rename(built, destination)
        except BaseException:
            if not os.path.lexists(destination):
                system.current.rename(replaced, destination)
            raise
    system.current.sync(destination.absolute().parent)


class FolderWriter:
    """Builds an edited copy of a folder in a hidden sibling of its destination.

    It is a context manager: leaving it before the copy was put in place removes what is unfinished.

    Parameters
    ----------
    root : pathlib.Path
        The folder to copy from.
    destination : path-like
        Where the copy goes.
    overwrite : bool
        Replace what is there, if it is one of the kind.

    Attributes
    ----------
    kind : str
        What such folders are called in messages: "a package".
    suffix : str
        What their names end in.
    marker : str
        The name of a file that all of them have.
    built : pathlib.Path
        The copy, while it is unfinished.
    mode : int
        The mode that the umask and the destination's folder let it have.
    """

    kind: str
    suffix: str
    marker: str

    def __init__(self, root: Path, destination: str | os.PathLike[str], *, overwrite: bool) -> None:
        self._root, self.overwrite = root, overwrite
        self.destination = user_path(destination)
        self._stack = ExitStack()
        remove_partials(self.destination)
        self._check_destination()

    def _check_destination(self) -> None:
        destination, root = self.destination, self._root
        if destination.suffix != self.suffix:
            raise ValueError(f"destination {destination} must end in {self.suffix}")
        if not destination.parent.is_dir():
            raise FileNotFoundError(f"destination {destination}: there is no directory {destination.parent}")
        if system.current.is_inside(destination, root) or system.current.is_inside(root, destination):
            raise ValueError(f"destination {destination} must not be, contain or be inside the source {root}")
        if os.path.lexists(destination):
            if not self.overwrite:
                raise FileExistsError(f"destination {destination} exists; pass overwrite=True to replace it")
            if destination.is_dir() and any(destination.iterdir()) and not (destination / self.marker).is_file():
                raise ValueError(f"destination {destination} is a directory but not {self.kind}; it is not overwritten")

    def __enter__(self: _Writer) -> _Writer:
        try:
            folder = self._stack.enter_context(partial_folder(self.destination.absolute()))
            self.built = folder / self.destination.name
            self.built.mkdir()
            self.mode = self.built.stat().st_mode
        except OSError as error:
            self._stack.close()
            raise OSError(error.errno, error.strerror, str(self.destination)) from error
        except BaseException:
            self._stack.close()
            raise
        return self

    def put_in_place(self) -> None:
        """Rename the finished copy to its destination, which is checked again."""
        self._check_destination()
        put_in_place(self.built, self.destination)

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()
