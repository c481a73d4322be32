"""Output files and folders as a careful Unix tool writes them: whole or not at all, and only what was named."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{16}\.partial", re.DOTALL)
_REPLACED = "replaced"
_WRITTEN_THROUGH = ("/dev/", "/proc/")
_log = logging.getLogger("corepress")


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


def write_output(path: str | os.PathLike[str], content: str | bytes | Iterable[bytes]) -> None:
    """Write a file that appears only when it is whole.

    A file that exists keeps its mode; a new one follows the umask. A symbolic link is followed, and devices, pipes and
    what stands for an open file (``/dev/stdout``) are written to instead of replaced.

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
    temporary = partial_path(target)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as opened:
            _lock(opened.fileno())
            opened.writelines(pieces)
            opened.flush()
            os.fsync(opened.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)


def _is_written_through(path: str | os.PathLike[str]) -> bool:
    absolute = os.path.abspath(path)
    if absolute.startswith(_WRITTEN_THROUGH):
        return True
    try:
        return not stat.S_ISREG(os.stat(absolute).st_mode)
    except FileNotFoundError:
        return False


def output_obstacle(path: Path, sources: Iterable[Path], result: Path | None) -> str | None:
    """Why a file must not be written, in a few words; None if it may.

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
        if resolved.is_relative_to(os.path.realpath(source)) or _is_same(path, source):
            return f"is {source} or inside it, which is only read"
    if result is not None and resolved.is_relative_to(os.path.realpath(result)):
        return f"is {result} or inside it, which is the result"
    if _is_written_through(path):
        return None if os.access(path, os.W_OK) else "cannot be written to"
    if not resolved.parent.is_dir():
        return f"is in the folder {resolved.parent}, which does not exist"
    if not os.access(resolved.parent, os.W_OK | os.X_OK):
        return f"is in the folder {resolved.parent}, which cannot be written to"
    return None


def _is_same(path: Path, other: Path) -> bool:
    return path.exists() and other.exists() and path.samefile(other)


def exchange(first: Path, second: Path) -> bool:
    """Let two files or folders take each other's names at one instant; False where the system cannot."""
    import ctypes

    if sys.platform == "win32":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "darwin":
        swap, arguments = getattr(library, "renamex_np", None), (*names, ctypes.c_uint(2))
    else:
        here = ctypes.c_int(-100)  # AT_FDCWD
        swap, arguments = getattr(library, "renameat2", None), (here, names[0], here, names[1], ctypes.c_uint(2))
    return swap is not None and swap(*arguments) == 0


def partial_path(target: Path) -> Path:
    """A new name for what is to become `target`, in the same folder."""
    return target.parent / f".{target.name}.{os.urandom(8).hex()}.partial"


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder for what is to become `target`, removed at the end; later runs find it if this one is killed.

    A lock on the folder says that its run is alive, whatever its process or machine.
    """
    descriptor = None
    # The name is known before the folder exists, so that an interrupt at any moment finds what to remove.
    path = partial_path(target)
    try:
        while descriptor is None:
            path.mkdir(mode=0o700)
            descriptor = _opened_and_locked(path)
            if descriptor is None:  # another run took it for a dead one's
                path = partial_path(target)
        yield path
    finally:
        try:
            remove_tree(path)
        except BaseException:  # another interrupt, say
            remove_tree(path)
            raise
        finally:
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)


def _opened_and_locked(path: Path) -> int | None:
    """A descriptor that holds the lock of a new folder, -1 where there are no such locks, None if it is gone."""
    if sys.platform == "win32":
        return -1
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if _lock(descriptor) is not False and path.exists():
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int) -> bool | None:
    """Lock a file for this run: whether it could be, None where the system or file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_partials(target: Path) -> None:
    """Remove what runs that were killed left beside `target`, and bring back a target that one had moved away.

    Left alone are those of runs that live, of other users, and whatever else than such a run's stands in them.
    """
    folder = Path(os.path.abspath(target)).parent
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if (found := _PARTIAL.fullmatch(name)) and found[1] == target.name]
        for name in names:
            _remove_partial(folder / name, target)


def _remove_partial(path: Path, target: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        if not hasattr(os, "geteuid") or found.st_uid != os.geteuid() or _lock(descriptor) is not True:
            return
        if stat.S_ISREG(found.st_mode):
            path.unlink()
        elif stat.S_ISDIR(found.st_mode) and set(os.listdir(path)) <= {target.name, _REPLACED}:
            replaced = path / _REPLACED
            if os.path.lexists(replaced) and not os.path.lexists(target):
                os.rename(replaced, target)
                sync(target.absolute().parent)
                _log.warning("%s: brought back; a run that was to replace it was killed", target)
            remove_tree(path)
        else:
            return
        _log.warning("%s: removed; a run that was killed had left it", path)
    except OSError:
        pass  # another run removed it first
    finally:
        os.close(descriptor)


def put_in_place(built: Path, destination: Path) -> None:
    """Rename a folder to `destination`; what is there already moves into `built`'s own folder, if possible at once."""
    if not os.path.lexists(destination):
        os.rename(built, destination)
    elif not exchange(built, destination):
        replaced = built.parent / _REPLACED
        os.rename(destination, replaced)
        try:
            os.rename(built, destination)
        except BaseException:
            if not os.path.lexists(destination):
                os.rename(replaced, destination)
            raise
    sync(destination.absolute().parent)


def remove_tree(path: Path) -> None:
    """Remove a folder and all that is in it, read-only folders too."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, stat.S_IRWXU)
    if path.exists():
        shutil.rmtree(path)
