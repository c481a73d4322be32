"""Files that several workers of a run need, made once."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .processes import TIMEOUT


def folder_of_run(factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share, and no other run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def source_digest(function: Callable[..., Any], *others: Any) -> str:
    """A digest of all that decides what a function does: its file, what it encloses, and other values."""
    file = inspect.getsourcefile(function)
    assert file is not None
    enclosed = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [Path(file).read_bytes(), function.__qualname__, enclosed, function.__defaults__, others]
    return hashlib.sha256(pickle.dumps(parts)).hexdigest()[:16]


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` fills if no other worker has, or is about to; it must not be changed afterwards."""
    done, lock = folder.with_suffix(".done"), folder.with_suffix(".lock")
    started = time.monotonic()
    while not done.exists():
        try:
            lock.mkdir(parents=True)
        except FileExistsError:
            assert time.monotonic() - started < 2 * TIMEOUT, f"{lock} was not released"
            time.sleep(0.05)
            continue
        try:
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                make(folder)
                done.touch()
        finally:
            lock.rmdir()
    return folder
