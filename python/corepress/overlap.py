"""Ordered read-ahead of work and write-behind of results.

Neither changes the order: results arrive, and writes happen, as they were requested. All bookkeeping is on the caller's
thread, which only ever waits in a queue: an interrupt can arrive at any time and finds nothing half done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from . import system
from ._core import StopSource, default_threads

MOST_BYTES_AHEAD = 64 << 20  # of tasks that have begun and whose results nobody has taken yet
MOST_BYTES_BEHIND = 16 << 20  # of data that wait to be written
MOST_WORKERS = 8

Value = TypeVar("Value")
Other = TypeVar("Other")


@dataclass(frozen=True)
class Task(Generic[Value]):
    """A function of a number of threads; `nbytes` is about the memory that it needs."""

    work: Callable[[int], Value]
    nbytes: int


class Result(Generic[Value]):
    """The result of a task: calling it returns the value, or raises the error, of the task."""

    def __init__(self, work: Callable[[], Value]) -> None:
        self._error: BaseException | None = None
        try:
            self._value = work()
        except BaseException as error:
            self._error = error

    @property
    def failed(self) -> bool:
        """Whether it raised."""
        return self._error is not None

    def __call__(self) -> Value:
        if self._error is not None:
            raise self._error
        return self._value


def both(beside: Callable[[], Value], here: Callable[[], Other]) -> tuple[Value, Other]:
    """The values of two functions, the first of which runs on a thread of its own while the second one runs here."""
    done: SimpleQueue[Result[Value]] = SimpleQueue()
    threading.Thread(target=lambda: done.put(Result(beside)), daemon=True).start()
    other = here()
    return system.current.take(done)(), other


class RunAhead(Generic[Value]):
    """Runs tasks on a few threads, as far ahead of `results` as a budget of bytes allows.

    Small tasks run in parallel and share the threads; one that is large compared with the budget gets all threads.
    Use it as a context manager: leaving drops the tasks that have not begun and stops those that have.

    Parameters
    ----------
    tasks : sequence of Task
        What to do, in this order.
    num_threads : int or None
        Threads to use in all; None for all CPUs this process may use, or `COREPRESS_NUM_THREADS`.
    """

    def __init__(self, tasks: Sequence[Task[Value]], num_threads: int | None) -> None:
        threads = default_threads() if num_threads is None else num_threads
        if threads < 1:
            raise ValueError(f"num_threads must be at least 1, not {threads}")
        self._tasks, self._threads = tasks, threads
        self._todo: SimpleQueue[int | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Result[Value]]] = SimpleQueue()
        count = min(threads, MOST_WORKERS, len(tasks))
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        self._stop = StopSource()

    def results(self) -> Iterator[Result[Value]]:
        """The results, in the order of the tasks. A result counts as taken when the next one is asked for."""
        finished: dict[int, Result[Value]] = {}
        begun = held = 0
        for index, task in enumerate(self._tasks):
            while begun < len(self._tasks):
                size = self._tasks[begun].nbytes
                if held and held + size > MOST_BYTES_AHEAD:
                    break
                held += size
                self._todo.put(begun)
                begun += 1
            while index not in finished:
                which, result = system.current.take(self._done)
                finished[which] = result
                del result
            yield finished.pop(index)
            held -= task.nbytes

    def _work(self) -> None:
        with self._stop:
            while (index := self._todo.get()) is not None:
                task = self._tasks[index]
                beside = min(max(1, MOST_BYTES_AHEAD // max(1, task.nbytes)), len(self._workers))
                result = Result(lambda: task.work(-(-self._threads // beside)))  # noqa: B023 (runs at once)
                self._done.put((index, result))
                del result

    def __enter__(self) -> RunAhead[Value]:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.stop()
        _drain(self._todo)
        for _worker in self._workers:
            self._todo.put(None)
        for worker in self._workers:
            if worker.ident is not None:  # it was started
                worker.join()


class WriteBehind:
    """Writes in order on its own thread; a caller waits only while too many bytes are pending.

    Use it as a context manager: leaving waits until all is written; leaving with an error drops what has not begun, and
    stops a write that calls `_core.check_stop` between its parts. A write that fails drops those after it, and its
    error is raised by one of the next calls, at the latest on leaving.
    """

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[Callable[[], Any], int] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Result[Any], int]] = SimpleQueue()
        self._pending_writes = self._pending_bytes = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._stop = StopSource()

    def put(self, write: Callable[[], Any], nbytes: int) -> None:
        """Request a write that keeps `nbytes` bytes in memory until it is done."""
        while self._pending_writes and self._pending_bytes + nbytes > MOST_BYTES_BEHIND:
            self._take()
        self._pending_writes += 1
        self._pending_bytes += nbytes
        self._todo.put((write, nbytes))

    def wait(self) -> None:
        """Wait until all is written."""
        while self._pending_writes:
            self._take()

    def _take(self) -> None:
        result, nbytes = system.current.take(self._done)
        self._pending_writes -= 1
        self._pending_bytes -= nbytes
        result()

    def _work(self) -> None:
        failure: Result[Any] | None = None
        with self._stop:
            while (item := self._todo.get()) is not None:
                write, nbytes = item
                result = failure or Result(write)
                del item, write  # they hold the data
                failure = result if result.failed else None
                self._done.put((result, nbytes))

    def __enter__(self) -> WriteBehind:
        self._thread.start()
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        try:
            if error_type is None:
                self.wait()
        finally:
            self._stop.stop()
            _drain(self._todo)
            self._todo.put(None)
            self._thread.join()


def _drain(queue: SimpleQueue[Any]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        pass
