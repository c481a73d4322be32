"""Tasks ahead of their results and writes behind their callers: orders, budgets, and failures on other threads."""

import threading

import pytest

from corepress import overlap
from corepress.overlap import RunAhead, Task, WriteBehind


def _fail(message):
    raise ValueError(message)


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_results_come_in_the_order_of_the_tasks(num_threads, count):
    finished = [threading.Event() for _ in range(count + 1)]

    def work(index):
        if num_threads > 1 and index % 2 == 0 and index + 1 < count:
            assert finished[index + 1].wait(10)  # a later task is done before this one
        finished[index].set()
        return index

    tasks = [Task(lambda threads, index=index: work(index), 1) for index in range(count)]
    with RunAhead(tasks, num_threads) as ahead:
        assert [result() for result in ahead.results()] == list(range(count))


def test_an_error_is_raised_where_its_result_is_asked_for():
    tasks = [Task(lambda threads: 0, 1), Task(lambda threads: _fail("second"), 1), Task(lambda threads: 2, 1)]
    with RunAhead(tasks, 2) as ahead:
        results = list(ahead.results())
    assert (results[0](), results[2]()) == (0, 2)
    with pytest.raises(ValueError, match="second"):
        results[1]()


def test_no_more_tasks_begin_than_the_budget_holds(monkeypatch):
    monkeypatch.setattr(overlap, "MOST_BYTES_AHEAD", 100)
    begun, enough = [], threading.Event()

    def work(index):
        begun.append(index)
        if len(begun) == 3:
            enough.set()

    tasks = [Task(lambda threads, index=index: work(index), 30) for index in range(8)]
    with RunAhead(tasks, 4) as ahead:
        results = ahead.results()
        next(results)
        assert enough.wait(10)
        assert sorted(begun) == [0, 1, 2]
        next(results)
    assert set(begun) <= {0, 1, 2, 3}


def test_a_task_beyond_the_budget_runs_all_the_same(monkeypatch):
    monkeypatch.setattr(overlap, "MOST_BYTES_AHEAD", 100)
    sizes = [1000, 0, 1000, 50, 50]
    with RunAhead([Task(lambda threads, size=size: size, size) for size in sizes], 2) as ahead:
        assert [result() for result in ahead.results()] == sizes


@pytest.mark.parametrize(
    ("nbytes", "num_threads", "count", "share"),
    [(60, 8, 4, 8), (50, 8, 4, 4), (25, 8, 4, 2), (1, 8, 4, 2), (1, 3, 9, 1), (1, 2, 1, 2), (0, 1, 1, 1)],
)
def test_threads_are_shared_by_those_that_fit_side_by_side(monkeypatch, nbytes, num_threads, count, share):
    monkeypatch.setattr(overlap, "MOST_BYTES_AHEAD", 100)
    with RunAhead([Task(lambda threads: threads, nbytes)] * count, num_threads) as ahead:
        assert {result() for result in ahead.results()} == {share}


def test_leaving_drops_what_has_not_begun():
    begun, blocked = [], threading.Event()

    def work(index):
        begun.append(index)
        if index == 1:
            assert blocked.wait(10)

    tasks = [Task(lambda threads, index=index: work(index), 1) for index in range(1000)]
    before = threading.active_count()

    def run():
        with RunAhead(tasks, 1) as ahead:
            next(ahead.results())
            threading.Timer(0.05, blocked.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert set(begun) <= {0, 1}
    assert threading.active_count() <= before + 1  # the timer, perhaps


@pytest.mark.parametrize("num_threads", [0, -1])
def test_no_threads_are_refused(num_threads):
    with pytest.raises(ValueError, match=f"num_threads must be at least 1, not {num_threads}"):
        RunAhead([], num_threads)


def test_writes_happen_in_order():
    written = []
    with WriteBehind() as behind:
        for index in range(500):
            behind.put(lambda index=index: written.append(index), 1)
    assert written == list(range(500))


def test_a_caller_waits_while_too_many_bytes_are_pending(monkeypatch):
    monkeypatch.setattr(overlap, "MOST_BYTES_BEHIND", 100)
    blocked, written = threading.Event(), []

    def slow():
        assert blocked.wait(10)
        written.append("slow")

    with WriteBehind() as behind:
        behind.put(slow, 60)
        behind.put(lambda: written.append("small"), 40)
        assert written == []
        threading.Timer(0.05, blocked.set).start()
        behind.put(lambda: written.append("next"), 60)
        assert written[:1] == ["slow"]  # one of the two had to be done before there was room
        behind.put(lambda: written.append("huge"), 1000)
    assert written == ["slow", "small", "next", "huge"]


def test_a_write_that_fails_drops_the_others_and_is_raised():
    written = []

    def run():
        with WriteBehind() as behind:
            behind.put(lambda: written.append(0), 1)
            behind.put(lambda: _fail("disk"), 1)
            behind.put(lambda: written.append(2), 1)

    with pytest.raises(ValueError, match="disk"):
        run()
    assert written == [0]


def test_a_failed_write_stops_its_caller(monkeypatch):
    monkeypatch.setattr(overlap, "MOST_BYTES_BEHIND", 10)
    asked = []

    def run():
        with WriteBehind() as behind:
            for index in range(100):
                behind.put(lambda: _fail("disk"), 6)
                asked.append(index)

    with pytest.raises(ValueError, match="disk"):
        run()
    assert len(asked) < 3


def test_an_error_of_the_caller_drops_what_waits():
    blocked, written = threading.Event(), []

    def run():
        with WriteBehind() as behind:
            behind.put(lambda: blocked.wait(10), 1)
            behind.put(lambda: written.append("never"), 1)
            threading.Timer(0.05, blocked.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert written == []
