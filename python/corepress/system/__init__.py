"""Everything that differs between operating systems: one class per system, with common behaviour in `base`.

Callers ask ``system.current``; tests put another system in its place.
"""

from __future__ import annotations

import sys

from .base import System

__all__ = ["System", "current"]


def _of_this_machine() -> System:
    if sys.platform == "win32":
        from .windows import Windows

        return Windows()
    if sys.platform == "darwin":
        from .macos import MacOS

        return MacOS()
    if sys.platform == "linux":
        from .linux import Linux

        return Linux()
    from .posix import Posix

    return Posix()


current = _of_this_machine()
