"""Entry point: exit codes, signals, and errors as one line.

Slow imports happen once signals are handled, so that an early Ctrl-C ends the command as a later one does.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence

from ..interrupts import interrupts_as_exceptions
from .console import write_plainly
from .failures import failure_of, interruption
from .session import Session


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments after the program's name; None for the process's own.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong usage, 130 interrupted. SIGTERM leaves through `SystemExit` with 143.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    session, arrived = Session(), list[int]()
    write_plainly()
    cause: BaseException
    try:
        with interrupts_as_exceptions(arrived):
            from .group import run

            return run(given, session)
    except KeyboardInterrupt as interrupt:
        failure, cause = interruption(session, signal.SIGINT), interrupt
    except Exception as error:
        failure, cause = interruption(session, arrived[0]) if arrived else failure_of(session, error), error
    if session.debug:
        traceback.print_exception(cause)
    if "--json" in given:
        print(failure.to_json())
    print(failure, file=sys.stderr)
    return failure.status
