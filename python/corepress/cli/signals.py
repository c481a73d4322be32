"""Signals that end a command, as exceptions, so that half-written output is removed on the way out."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def signals_as_exceptions(arrived: list[int]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGINT, and `SystemExit` with 128 + its number on SIGTERM and SIGHUP.

    A signal that is ignored, or that the caller handles, is left so.

    Parameters
    ----------
    arrived : list of int
        Where signals that arrive are noted. Whatever they interrupt may make another exception of theirs, as Python
        3.11 does of what is raised in a ``__set_name__``, and a native module of what is raised while it loads.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    ours = [number for number in numbers if before[number] in (signal.SIG_DFL, signal.default_int_handler)]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    try:
        for number in ours:
            signal.signal(number, leave)
        yield
    finally:
        for number in ours:
            signal.signal(number, before[number])
