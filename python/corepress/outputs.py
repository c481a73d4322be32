"""Output files and folders, written as by a careful Unix tool: completely or not at all, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import system

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_WRITTEN, _REPLACED, _LOCK = "written", "replaced", "lock"  # in a partial folder
_log = logging.getLogger("corepress")


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
