"""Keeping the towers busy: work done ahead in threads, batches, and a bar that says how far it is."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TextIO, TypeVar

from minclip.threads import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def default_workers() -> int:
    """Threads that decode pictures: one a core that is ours, but not so many that they fight over memory."""
    return min(16, available_cores())


def startable_threads(wanted: int) -> int:
    """How many of so many threads can run at once: 0 in a Python that has none, as in a browser (Pyodide)."""
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, name="minclip-probe") for _ in range(wanted)]
    started = 0
    try:
        for thread in threads:
            thread.start()
            started += 1
    except RuntimeError:  # can't start new thread
        pass
    finally:
        done.set()
        for thread in threads[:started]:
            thread.join()
    return started


def ahead(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, depth: int) -> Generator[Result]:
    """`map(function, items)`, in order, computed by `workers` threads at most `depth` items ahead of the reader.

    Decoding and resizing in Pillow let go of the interpreter's lock, so threads are enough. Where fewer threads can be
    started, those do the work; where none can, the reader does it, an item when it is asked for.
    """
    source = iter(items)
    threads = startable_threads(workers)
    if threads == 0:
        yield from map(function, source)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(source, depth))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Slices of `size` items, the last one shorter."""
    return (items[start : start + size] for start in range(0, len(items), size))


class Progress:
    """A bar on the terminal: `label 45% |#########           | 450/1000 12.3/s`. Silent where it is not wanted."""

    WIDTH = 24

    def __init__(self, label: str, total: int, *, show: bool, stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._stream = (sys.stderr if stream is None else stream) if show else None
        self._start = self._drawn = time.monotonic()
        self._line_open = False

    def advance(self, count: int) -> None:
        """Say that `count` more items are done; redrawn ten times a second at most, and at the end."""
        self.done += count
        now = time.monotonic()
        if self._stream is None or (now - self._drawn < 0.1 and self.done < self.total):
            return
        self._drawn = now
        self._line_open = self.done < self.total
        share = self.done / self.total if self.total else 1.0
        bar = "#" * round(self.WIDTH * share)
        rate = self.done / max(now - self._start, 1e-9)
        end = "" if self._line_open else "\n"
        self._stream.write(
            f"\r{self.label} {share:4.0%} |{bar:<{self.WIDTH}}| {self.done}/{self.total} {rate:.1f}/s{end}"
        )
        self._stream.flush()

    def close(self) -> None:
        """End the bar's line, where one was drawn and the run stopped before its end."""
        if self._stream is not None and self._line_open:
            self._line_open = False
            self._stream.write("\n")
            self._stream.flush()
