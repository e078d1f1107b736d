"""The one claim that every attack of these tests makes.

Whatever it is given, minclip gives a right answer or refuses in one line of its own; no other exception, no more than
`SECONDS` for one thing, no more than `MEGABYTES` for all of them.

    attacked = attack(use, (mutated(sound, JSON, rng) for _ in range(1000)))     # Counter(refused=900, answered=100)

How many are tried: few in the ordinary run, more behind the marker `long`, and there MINCLIP_ATTACKS times as many:
MINCLIP_ATTACKS=20 makes 10,000 of each kind of damaged file, and a million texts, which takes hours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from minclip.errors import MinclipError

SECONDS = 5.0  # for one attack
MEGABYTES = 150  # beyond what was in use before
PEAK = Path("/proc/self/clear_refs")  # writing 5 makes the kernel measure the highest use of memory anew
MEASURED = PEAK.exists() and os.access(PEAK, os.W_OK)
needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here to end what hangs")


TIMES = int(os.environ.get("MINCLIP_ATTACKS", "1"))


def counts(short: int, long: int) -> pytest.MarkDecorator:
    """The argument `count`: short in every run, in the long one `long` times what MINCLIP_ATTACKS says."""
    return pytest.mark.parametrize("count", [short, pytest.param(TIMES * long, marks=pytest.mark.long, id="long")])


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way up takes it for a decoder's."""


@contextlib.contextmanager
def time_limit(seconds: float | None = None) -> Iterator[None]:
    """Raise TooSlow in what takes longer."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS if seconds is None else seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def megabytes(field: str) -> float:
    """A line of the process's status: VmRSS is the memory in use, VmHWM the most there was."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


@contextlib.contextmanager
def memory_limit(limit: float | None = None) -> Iterator[None]:
    """Assert that what is done inside needs no more memory."""
    if MEASURED:
        PEAK.write_text("5")
        before = megabytes("VmRSS")
    yield
    if MEASURED:
        assert megabytes("VmHWM") - before < (MEGABYTES if limit is None else limit)


def ours(error: Exception) -> bool:
    """Whether an error is one that minclip raises on purpose: of its kinds, or a ValueError by a `raise` of its own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    in_minclip = any(part.startswith("minclip") for part in Path(last.filename).parts)
    raised = in_minclip and str(last.line).startswith("raise ")
    return isinstance(error, MinclipError) or (isinstance(error, ValueError) and raised)


def outcome(use: Callable[[Any], object], given: Any, kind: type[Exception] = Exception) -> str:
    """ "answered" or "refused"; anything else is a broken claim.

    use: asserts that its own answer is right. kind: of error that refusals have to be, besides being ours.
    """
    try:
        with time_limit():
            use(given)
    except Exception as error:
        if not (ours(error) and isinstance(error, kind)):
            raise
        message = str(error)
        assert message.strip(), f"{type(error).__name__} says nothing"  # noqa: PT017
        assert "\n" not in message, f"more than one line: {message}"
        return "refused"
    return "answered"


def attack(use: Callable[[Any], object], givens: Iterable[Any], kind: type[Exception] = Exception) -> Counter[str]:
    """Hold each of what is given to the claim; what came of them. use and kind: see `outcome`."""
    found: Counter[str] = Counter()
    with memory_limit():
        for given in givens:
            try:
                found[outcome(use, given, kind)] += 1
            except BaseException as error:
                error.add_note(f"attacked with {str(given)[:2000] if len(given) > 100_000 else given!r}")
                raise
    return found
