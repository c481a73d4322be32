"""Turn termination signals into exceptions so that cleanup runs, or defer them."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], replaces: Callable[[Any], bool]) -> Iterator[None]:
    """Let a function handle interrupts for a while, in place of the current handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: found for number in INTERRUPTS if replaces(found := signal.getsignal(number))}
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, found in before.items():
            signal.signal(number, found)


@contextmanager
def interrupts_as_exceptions(arrived: list[int]) -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGINT, and `SystemExit` with 128 + its number on the others of `INTERRUPTS`.

    A signal that is ignored, or that the caller handles, is left alone.

    Parameters
    ----------
    arrived : list of int
        Records the signals that arrive. The interrupted code may replace their exceptions by others, as Python 3.11
        does for exceptions in ``__set_name__``, and native modules for exceptions while they load.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        arrived.append(number)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_IGN)
        sys.exit(128 + number)

    with _handled_by(leave, lambda handler: handler in (signal.SIG_DFL, signal.default_int_handler)):
        yield


@contextmanager
def interrupts_after() -> Iterator[None]:
    """Defer a signal that arrives inside the block, whose code would lose it, to the end of the block."""
    arrived: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    try:
        with _handled_by(remember, lambda handler: handler not in (None, signal.SIG_IGN)):
            yield
    finally:
        for number in arrived[:1]:
            signal.raise_signal(number)
