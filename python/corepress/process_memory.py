"""Memory of this process, as the system counts it."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def status_bytes(key: str) -> int:
    """A quantity of Linux's ``/proc/self/status`` in bytes; OSError or LookupError where it is not given."""
    return 1024 * int(_STATUS.read_text(encoding="ascii", errors="replace").split(f"\n{key}:")[1].split()[0])


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far, or None where the system does not report it."""
    try:
        # Linux has getrusage count the memory of the process that started this one, but not this.
        return status_bytes("VmHWM")
    except (OSError, LookupError):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
