"""The cores that are ours, and a team of threads that work on one answer together.

NumPy's linear-algebra library (OpenBLAS, MKL, ...) has threads of its own. They share one product at a time: whatever
lies between two products stays on one core, and beside other processes every product waits for a thread that is not
running. So the towers cut their work themselves, by `Team`, and keep the library to one thread meanwhile.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def available_cores() -> int:
    """The cores that this process may use: by its affinity, and by the limit of its container (cgroup), rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(Path("/sys/fs/cgroup"))
    return min(cores, math.ceil(quota)) if quota < cores else cores


def _quota(root: Path) -> float:
    """How many cores' time the control group has: of version 2 (cpu.max) or 1 (cpu.cfs_quota_us). inf: no limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / name).read_text() for name in names).split()
            if quota != "max" and float(quota) > 0:
                return float(quota) / float(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return float("inf")


def default_threads() -> int:
    """Threads for NumPy's towers: the cores that are ours, or fewer where the library was set to fewer (its environment
    variables, such as OPENBLAS_NUM_THREADS); one where it cannot be kept to one thread, as it uses several itself."""
    numbers = _one_thread.otherwise()
    return max(1, min(available_cores(), *numbers)) if numbers else 1


def checked_threads(threads: int) -> int:
    """The number of threads that somebody asked for. Raises ValueError for what is none."""
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise ValueError(f"threads must be a whole number of at least 1, not {threads!r}")
    return threads


def linear_algebra() -> str:
    """What multiplies NumPy's matrices, in words: "openblas 0.3.31 with Haswell kernels, 2 threads"."""
    found = []
    for library, threads in zip(_libraries(), _one_thread.otherwise(), strict=True):
        info = library.info()
        kernels = f" with {info['architecture']} kernels" if info.get("architecture") else ""
        found.append(f"{info['internal_api']} {info['version'] or ''}{kernels}, {threads} thread{'s'[: threads != 1]}")
    return "; ".join(found) or "a library whose threads cannot be set"


def kernels() -> set[str]:
    """For which processors the libraries' kernels are made, by the libraries' own names: {"SkylakeX"}."""
    return {library.info().get("architecture") for library in _libraries()} - {None}


@lru_cache(maxsize=1)
def _libraries() -> tuple[Any, ...]:
    """Those of threadpoolctl's controllers that are for linear algebra."""
    from threadpoolctl import ThreadpoolController  # here, so that a process without a model does without it

    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


class _OneThread:
    """Keeps the linear-algebra libraries to one thread each while anybody wants that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[int] = []

    def otherwise(self) -> list[int]:
        """How many threads each library has while nobody keeps it to one."""
        with self._lock:
            return self._before if self._users else [library.num_threads or 1 for library in _libraries()]

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """One thread each within. The first who comes sets that, the last who leaves puts back what was before."""
        before = self.otherwise()
        with self._lock:
            if not self._users:
                self._before = before
                self._set([1] * len(before))
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set(self._before)

    def _set(self, numbers: Sequence[int]) -> None:
        for library, number in zip(_libraries(), numbers, strict=True):
            library.set_num_threads(number)


_one_thread = _OneThread()


def library_on_one_thread() -> AbstractContextManager[None]:
    """Within, the linear-algebra library works on the caller's thread alone, as it does while a `Team` is at work.

    For what is computed between two runs: a library's threads, once woken, wait for more and keep a core busy for a
    tenth of a second, in which the next run has a core less.
    """
    return _one_thread.wanted()


class Team:
    """`size` threads that share out work, the caller's own among them. None: `default_threads()`. ValueError for none.

    Where no thread can be started, the caller does all of it.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = default_threads() if size is None else checked_threads(size)
        self._helpers: ThreadPoolExecutor | None = None

    @contextmanager
    def at_work(self) -> Iterator[Team]:
        """A team whose threads are there until the end of the `with`, for one run: runs may overlap."""
        with _one_thread.wanted():
            if self.size == 1:
                yield self
                return
            team = Team(self.size)
            with ThreadPoolExecutor(self.size - 1, "minclip") as team._helpers:
                yield team

    def map(self, function: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
        """`function` of each part, in order. Raises what the first part that failed raised, when all are done."""
        if self._helpers is None or len(parts) < 2:
            return [function(part) for part in parts]
        try:
            others = [self._helpers.submit(function, part) for part in parts[1:]]
        except RuntimeError:  # no thread can be started (a Python in a browser, a limit of the system)
            self._helpers = None
            return [function(part) for part in parts]
        outcomes = [self._outcome(function, parts[0])]
        for part, other in zip(parts[1:], others, strict=True):  # those that no helper has begun with are ours, too
            outcomes.append(self._outcome(function, part) if other.cancel() else other)
        wait(outcomes)
        return [outcome.result() for outcome in outcomes]

    @staticmethod
    def _outcome(function: Callable[[Part], Result], part: Part) -> Future[Result]:
        """What comes of one part, on the caller's own thread."""
        outcome: Future[Result] = Future()
        try:
            outcome.set_result(function(part))
        except Exception as error:
            outcome.set_exception(error)
        return outcome

    def split(self, count: int, most: int | None = None) -> list[slice]:
        """Slices of nearly equal length that make up range(count): one a thread, or more where `most` is the longest
        that a slice may be."""
        parts = min(self.size, count)
        if most is not None and count > parts * most:
            parts = min(count, parts * -(-count // (parts * most)))
        bounds = [count * part // parts for part in range(parts + 1)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]
