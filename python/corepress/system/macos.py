"""macOS: flushes that reach the disk, atomic exchanges, and copies that share their blocks."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from .posix import Posix, c_library

_F_FULLFSYNC, _RENAME_SWAP = 51, 2


class MacOS(Posix):
    """macOS 11 and newer."""

    library_names = ("libcorepress.dylib",)

    def flush(self, descriptor: int) -> None:
        """See `System.flush`."""
        import fcntl

        try:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)  # fsync leaves it in the cache of the disk
        except OSError:  # a file system that has no such request
            super().flush(descriptor)

    def exchange(self, first: Path, second: Path) -> bool:
        """See `System.exchange`; file systems other than Apple's cannot."""
        import ctypes

        swap = c_library().renamex_np
        return bool(swap(os.fsencode(first), os.fsencode(second), ctypes.c_uint(_RENAME_SWAP)) == 0)

    def copy_file(self, source: Path, target: Path) -> None:
        """See `System.copy_file`: a clone, or what ``fcopyfile`` does, which Python calls."""
        import ctypes

        if c_library().clonefile(os.fsencode(source), os.fsencode(target), ctypes.c_uint32(0)) != 0:
            super().copy_file(source, target)

    def cpu_name(self) -> str:
        """See `System.cpu_name`."""
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        return done.stdout.strip() or platform.machine()
