"""Files that are mapped into memory, safe where they become shorter, and letting their pages go."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import MemoryGuard


class GuardedMap(mmap.mmap):
    """A read-only map of a file whose pages become zeros where the file has become shorter, instead of SIGBUS.

    It is closed by dropping all references: it must be guarded for as long as it is mapped.
    """

    _guard: MemoryGuard

    def __new__(cls, descriptor: int) -> GuardedMap:
        self = super().__new__(cls, descriptor, 0, access=mmap.ACCESS_READ)
        self._guard = MemoryGuard(self)
        return self

    @property
    def lost(self) -> bool:
        """Whether pages could not be read."""
        return self._guard.lost


def release_array(array: NDArray[Any]) -> None:
    """Let the system drop the pages of an array that is a view of a `GuardedMap`; they are read again when needed."""
    base: Any = array
    while isinstance(base, np.ndarray | memoryview):
        base = base.base if isinstance(base, np.ndarray) else base.obj
    if not isinstance(base, GuardedMap) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first = start // mmap.PAGESIZE * mmap.PAGESIZE
    with contextlib.suppress(OSError):
        base.madvise(mmap.MADV_DONTNEED, first, start + array.nbytes - first)
