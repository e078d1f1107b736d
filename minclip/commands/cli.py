"""`minclip COMMAND ...`: the commands, their parser, and how each of them ends.

Only the file of the command that was named is imported.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import NoReturn

from minclip import __version__, notice
from minclip.commands.printing import complain
from minclip.errors import MinclipError

COMMANDS = {
    "zero-shot": "Rank labels for pictures.",
    "index": "Make an index of folders of pictures, or bring it up to date.",
    "search": "Find pictures of an index by a text, a picture, or a sum of both.",
    "evaluate": "Measure how good labels or captions are on pictures whose answers are known.",
    "labels": "Encode many labels once, into a file that zero-shot and evaluate take.",
    "embed": "Embed pictures or texts into an .npz file.",
    "explain": "Draw which patches and words the labels' scores rest on.",
    "info": "Describe a checkpoint: config, parameters, memory, files.",
    "bench": "Measure speed and memory on this machine, beside its limits and the peers that are installed.",
    "diff": "Find the first step at which a backend leaves the NumPy reference.",
    "demo": "Rank labels in several languages for the bundled pictures, or for a picture of yours.",
    "models": "List the bundled models: name, languages, size, folder.",
    "backends": "List the backends and their devices.",
}
BY_SIGNAL = 128  # and the signal's number, as a shell reports it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Returns the exit code: 0; 1 where something was left out or differs; 2 where nothing was done."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with usable_streams(), ended_by_signals():
            with uninterrupted_imports():
                options = parser(words).parse_args(words)
            with how_to_choose(options.how_to_choose), warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Image size .* exceeds limit")  # at twice the size: an error
                # NumPy's, of numbers that are refused in one line afterwards
                warnings.filterwarnings("ignore", message=".* encountered in ")
                code: int = options.run(options)
            sys.stdout.flush()
            return code
    except BrokenPipeError:  # the reader of a pipe has seen enough
        drop_output()
        return 0
    except (MinclipError, ValueError, OSError, MemoryError) as error:
        complain(reason(error))
        drop_output()
        return 2
    except KeyboardInterrupt:
        return BY_SIGNAL + signal.SIGINT


class OneLineParser(argparse.ArgumentParser):
    """Answers a wrong option with one line. Options are written out: an abbreviation may mean another one tomorrow."""

    def __init__(self, prog: str | None = None, **settings: object) -> None:
        super().__init__(prog=prog, allow_abbrev=False, **settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"minclip: {message}; see {self.prog} --help\n")


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the one that `words` name."""
    top = OneLineParser("minclip", description="CLIP in NumPy: rank labels for pictures, embed pictures and texts.")
    top.add_argument("--version", action="version", version=f"minclip {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    named = next((word for word in words if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        made = commands.add_parser(name, help=summary, description=summary)
        if name == named:
            command = import_module(f"minclip.commands.{name.replace('-', '_')}")
            made.set_defaults(run=command.run, how_to_choose=f"pass --model {notice.ANOTHER}")
            command.add_arguments(made)
    return top


# --- how a command ends --------------------------------------------------------------------------------------------


@contextmanager
def how_to_choose(advice: str) -> Iterator[None]:
    """Within, the notice about a bundled model says how to choose another one on the command line."""
    token = notice.how_to_choose.set(advice)
    try:
        yield
    finally:
        notice.how_to_choose.reset(token)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Standard streams that take any text, whatever their encoding, and that may be closed (None in Python).

    An answer that goes to a closed stdout raises ValueError at the end; lines for a closed stderr are dropped.
    """
    before = sys.stdout, sys.stderr
    if isinstance(sys.stdout, io.TextIOWrapper):  # a label that the terminal cannot show costs no ranking
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = sys.stderr or io.StringIO()
    answer = sys.stdout = sys.stdout or io.StringIO()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
    if before[0] is None and isinstance(answer, io.StringIO) and answer.getvalue():
        raise ValueError("stdout is closed, so the answer could not be printed")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within, SIGTERM and SIGHUP end the command as an exception does, so that it leaves no half-written file."""

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(BY_SIGNAL + number)

    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    with handled({number: end for number in names if signal.getsignal(number) is signal.SIG_DFL}):
        yield


@contextmanager
def uninterrupted_imports() -> Iterator[None]:
    """Within, Ctrl-C ends the process at once: raised inside an import of NumPy's, it would come out as a traceback."""
    default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with handled({signal.SIGINT: signal.SIG_DFL} if default else {}):
        yield


@contextmanager
def handled(handlers: dict[int, object]) -> Iterator[None]:
    """Signal handlers for a while; none where this is not the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}  # type: ignore[arg-type]
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drop_output() -> None:
    """Drop what stdout holds and cannot write; Python would try again at its end, and complain."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def reason(error: BaseException) -> str:
    """What an error says; of an OSError `file: reason`, without its number."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(str(error).splitlines()) or type(error).__name__
