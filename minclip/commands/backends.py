"""`minclip backends`: every installed backend with its devices, or the reason why it cannot start."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from minclip.backend import Backend, installed
from minclip.errors import BackendError
from minclip.files import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace) -> int:
    for name, start in sorted(installed().items()):
        print(f"{name:<10} {devices_or_reason(start)}")
    return 0


def devices_or_reason(start: Callable[[], Backend | BackendError]) -> str:
    """The devices of a backend, or in one line why it cannot start: a plugin may raise anything, even SystemExit."""
    try:
        backend = start()
        return one_line(backend) if isinstance(backend, BackendError) else ", ".join(backend.devices())
    except (Exception, SystemExit) as error:
        return f"cannot start: {type(error).__name__}: {one_line(error)}"
