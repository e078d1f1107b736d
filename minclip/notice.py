"""What is said, once in a process, about the models in the box: what they know, and how to name another one.

It goes to the logger "minclip". Where a program has not set up logging, Python prints the line on stderr; one that
wants it elsewhere sets up a handler, one that wants silence says `logging.getLogger("minclip").setLevel("ERROR")`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ANOTHER = "openai/clip-vit-large-patch14"  # a model of the world outside, as an example
_way_out = f'pass model="{ANOTHER}"'
_said = threading.Lock()  # taken by whoever says it first, and never given back


def say_once(name: str) -> None:
    """Say of the bundled model `name` what it knows, unless this process has said so of one before."""
    if _said.acquire(blocking=False):
        logging.getLogger("minclip").warning(
            "minclip: using the bundled %s, which knows drawn pictures such as emoji and icons, not photographs; "
            "for those %s",
            name,
            _way_out,
        )


@contextmanager
def way_out(words: str) -> Iterator[None]:
    """Within, these are the words for how to name another model: the command line has its own."""
    global _way_out
    before, _way_out = _way_out, words
    try:
        yield
    finally:
        _way_out = before
