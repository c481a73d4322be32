"""Processes that run models which might end the one that runs them, and what is known when one has ended."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

from ..errors import FormatError, OperationError, UnsupportedOperationError
from .exchange import receive, send

_MOST_SPARE, _MOST_KEPT = 2, 1 << 29  # processes that wait for the next model, and the bytes that each may hold
_PRINTED = 4096  # bytes of what it printed last that are looked at
_ERRORS = (FormatError, OperationError, UnsupportedOperationError, ValueError, TypeError, KeyError, OSError)
_NOISE = re.compile(r"^(ODIE \[|\s*$)")


class EndedError(RuntimeError):
    """The process ended while it worked on a request; the message is what it said last, or the signal."""


class WorkerProcess:
    """A process that answers requests, with a temporary folder that vanishes with it.

    Parameters
    ----------
    module : str
        The module of this package whose ``main`` it runs.
    """

    def __init__(self, module: str) -> None:
        if not sys.executable:
            raise OSError("there is no Python interpreter to start a process with (sys.executable is empty)")
        self.module = module
        self._lock = threading.Lock()
        self._folder = tempfile.mkdtemp(prefix="corepress-")
        package = __name__.rpartition(".")[0]
        code = f"import sys; sys.path[:] = {sys.path!r}; from {package}.{module} import main; main()"
        try:
            self._said = open(os.path.join(self._folder, "said"), "w+b")  # noqa: SIM115  (closed by `close`)
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, self._folder],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=os.environ | {"TMPDIR": self._folder},
                start_new_session=True,  # an interrupt is for the user's process, which ends this one
            )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        _running.add(self)

    @property
    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None and self in _running

    def ask(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Send a request and wait for the answer.

        Raises
        ------
        EndedError
            If the process ended.
        Exception
            What the request raised: one of Python's own errors or of this package's, else a RuntimeError.
        """
        with self._lock:
            try:
                send(self._process.stdin, (name, arguments, options))  # type: ignore[arg-type]
                good, *answer = receive(self._process.stdout)  # type: ignore[arg-type]
            except (OSError, EOFError, ValueError):
                words = self._last_words()
                self.close()
                raise EndedError(words) from None
            except BaseException:  # an interrupt: the answer would be taken for that of the next request
                self.close()
                raise
        if good:
            return answer[0]
        kind = next((each for each in _ERRORS if each.__name__ == answer[0]), RuntimeError)
        raise kind(answer[1])

    def close(self) -> None:
        """End it."""
        if self not in _running:
            return
        _running.discard(self)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # what was not sent is of no use any more
                stream.close()  # type: ignore[union-attr]
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _last_words(self) -> str:
        try:
            code: int | None = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _PRINTED))
        lines = self._said.read().decode(errors="replace").splitlines()
        said = [line.strip() for line in lines if not _NOISE.match(line)]
        if code is not None and code < 0 and not (said and "rror" in said[-1]):
            return signal.strsignal(-code) or f"signal {-code}"
        return said[-1] if said else f"exit status {code}"


_running: set[WorkerProcess] = set()
_spare: list[WorkerProcess] = []


def acquire(module: str) -> WorkerProcess:
    """A process that no one else uses: one that was given back, or a new one."""
    for each in _spare:
        if each.module == module:
            _spare.remove(each)
            if each.is_running:
                return each
            each.close()
            break
    return WorkerProcess(module)


def give_back(process: WorkerProcess) -> None:
    """Keep a process for the next one who needs it, if it is well, without anything that it holds."""
    if not process.is_running:
        process.close()
        return
    try:
        kept = process.ask("clear")
    except (EndedError, RuntimeError):
        kept = _MOST_KEPT + 1
    if kept <= _MOST_KEPT and len(_spare) < _MOST_SPARE and process.is_running:
        _spare.append(process)
    else:
        process.close()


@atexit.register
def _close_all() -> None:
    for each in list(_running):
        each.close()


def _forget_all() -> None:
    """In a fork, which must not talk to the processes of its parent."""
    _running.clear()
    _spare.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
