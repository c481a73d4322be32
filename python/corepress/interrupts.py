"""Turn termination signals into exceptions so that cleanup runs, or defer them."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
_SOON = 0.01  # seconds


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

    A signal that is ignored, or that the caller handles, is left alone. Where a signal interrupts a destructor or a
    callback whose exceptions Python drops, it arrives once more.

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

    default = (signal.SIG_DFL, signal.default_int_handler)
    with _handled_by(leave, lambda handler: handler in default), _dropped_again(arrived, leave):
        yield


def _send_to_main_thread(number: int) -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)  # this also ends a wait of the system
    else:
        _thread.interrupt_main(signal.Signals(number))


@contextmanager
def _dropped_again(arrived: list[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a signal whose exception is dropped arrive again, outside the code that dropped it."""
    before = sys.unraisablehook

    def tell(unraisable: Any) -> None:
        if not (arrived and isinstance(unraisable.exc_value, KeyboardInterrupt | SystemExit)):
            before(unraisable)
            return
        signal.signal(arrived[-1], handler)
        again = threading.Timer(_SOON, _send_to_main_thread, (arrived[-1],))
        again.daemon = True
        again.start()

    sys.unraisablehook = tell
    try:
        yield
    finally:
        sys.unraisablehook = before


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
