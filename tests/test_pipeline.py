"""Work done ahead in threads, and the bar."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minclip import pipeline
from minclip.pipeline import Progress, ahead, batched, default_workers, startable_threads


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Source:
    """Numbers, which remember how many of them were asked for."""

    def __init__(self, count: int) -> None:
        self.taken = 0
        self.count = count

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            self.taken += 1
            yield number


@given(count=st.integers(0, 30), workers=st.integers(1, 4), depth=st.integers(1, 40))
def test_results_come_in_the_order_of_the_items(count: int, workers: int, depth: int) -> None:
    def late_for_even(number: int) -> int:
        time.sleep(0 if number % 2 else 0.001)
        return -number

    assert list(ahead(late_for_even, range(count), workers=workers, depth=depth)) == [-n for n in range(count)]


@given(workers=st.integers(1, 4), depth=st.integers(1, 8))
def test_no_more_than_depth_items_are_begun_beyond_those_read(workers: int, depth: int) -> None:
    source = Source(20)
    for read, _ in enumerate(ahead(abs, source, workers=workers, depth=depth), start=1):
        assert source.taken == min(20, read + depth)


def test_work_goes_on_while_the_reader_is_busy() -> None:
    begun = threading.Semaphore(0)
    results = ahead(lambda number: begun.release(), range(10), workers=2, depth=5)
    next(results)
    assert all(begun.acquire(timeout=5) for _ in range(6))  # the one read, and five ahead of it
    results.close()


def test_an_error_surfaces_at_its_place() -> None:
    results = ahead(lambda number: 1 // (3 - number), range(10), workers=4, depth=8)
    assert [next(results) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_what_was_not_begun_is_not_done_after_an_error() -> None:
    done = []

    def fail_first(number: int) -> None:
        if number == 0:
            raise OSError("the first")
        time.sleep(0.02)
        done.append(number)

    with pytest.raises(OSError, match="the first"):
        list(ahead(fail_first, range(1000), workers=1, depth=100))
    assert len(done) <= 2


def test_an_error_of_the_source_surfaces() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("no second item")

    with pytest.raises(LookupError, match="no second item"):
        list(ahead(abs, broken(), workers=2, depth=4))


def test_a_reader_who_leaves_early_leaves_no_thread() -> None:
    results = ahead(abs, range(1000), workers=4, depth=10)
    next(results)
    results.close()  # the fixture looks for threads


class Limit:
    """Stands for `Thread.start` where a system lets `most` threads run at once."""

    def __init__(self, most: int, start: Callable[[threading.Thread], None]) -> None:
        self.most, self.start, self.begun = most, start, list[threading.Thread]()

    def __get__(self, thread: threading.Thread, kind: type[threading.Thread]) -> Callable[[], None]:
        def start() -> None:
            if sum(each.is_alive() for each in self.begun) >= self.most:
                raise RuntimeError("can't start new thread")
            self.start(thread)
            self.begun.append(thread)

        return start


@given(most=st.integers(0, 4), count=st.integers(0, 30), workers=st.integers(1, 4), depth=st.integers(1, 8))
def test_a_system_with_few_threads_or_none_gives_the_same_in_the_same_order(
    most: int, count: int, workers: int, depth: int
) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return -number

    with mock.patch.object(threading.Thread, "start", Limit(most, threading.Thread.start)):
        assert startable_threads(workers) == min(most, workers)
        assert list(ahead(work, range(count), workers=workers, depth=depth)) == [-n for n in range(count)]
    assert sorted(done) == list(range(count))  # each once


def test_without_threads_an_item_is_worked_on_when_it_is_asked_for() -> None:
    source = Source(20)
    with mock.patch.object(threading.Thread, "start", Limit(0, threading.Thread.start)):
        for read, _ in enumerate(ahead(abs, source, workers=2, depth=8), start=1):
            assert source.taken == read


@given(items=st.lists(st.integers(), max_size=30), size=st.integers(1, 10))
def test_batches_joined_are_the_items(items: list[int], size: int) -> None:
    batches = list(batched(items, size))
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == size for batch in batches[:-1])


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system knows no affinity")
def test_workers_are_no_more_than_the_cores_that_are_ours() -> None:
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(ours)})
    try:
        assert default_workers() == 1
    finally:
        os.sched_setaffinity(0, ours)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of one number, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: now[0])
    return now


def test_a_bar_that_is_not_shown_writes_nothing() -> None:
    stream = io.StringIO()
    bar = Progress("images", 2, show=False, stream=stream)
    bar.advance(2)
    bar.close()
    assert stream.getvalue() == ""


def test_a_finished_bar_is_full_and_ends_its_line_once(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress("images", 4, show=True, stream=stream)
    clock[0] += 2
    bar.advance(4)
    bar.close()
    assert stream.getvalue() == f"\rimages 100% |{'#' * Progress.WIDTH}| 4/4 2.0/s\n"


def test_a_bar_that_stops_early_ends_its_line_once(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress("images", 4, show=True, stream=stream)
    clock[0] += 1
    bar.advance(2)
    assert not stream.getvalue().endswith("\n")
    bar.close()
    bar.close()
    assert stream.getvalue().endswith(" 2/4 2.0/s\n")


def test_a_bar_never_drawn_needs_no_end(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress("images", 4, show=True, stream=stream)
    bar.advance(1)  # too early to be drawn
    bar.close()
    assert stream.getvalue() == ""


def test_a_bar_is_drawn_ten_times_a_second_at_most(clock: list[float]) -> None:
    stream = io.StringIO()
    bar = Progress("images", 1000, show=True, stream=stream)
    for _ in range(999):
        clock[0] += 0.001
        bar.advance(1)
    assert 1 <= stream.getvalue().count("\r") <= 10
