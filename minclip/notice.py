"""The one line that is logged when a bundled model is loaded: what it knows, and how to choose another one.

It goes to the logger "minclip". Where a program has not set up logging, Python prints the line on stderr; one that
wants it elsewhere sets up a handler, one that wants silence calls `logging.getLogger("minclip").setLevel("ERROR")`.
"""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar

ANOTHER = "openai/clip-vit-large-patch14"  # an example of a model that is not bundled
how_to_choose = ContextVar("how_to_choose", default=f'pass model="{ANOTHER}"')  # the command line sets its own words

_lock = threading.Lock()
_announced = False


def announce_bundled(name: str) -> None:
    """Log what the bundled model `name` knows, the first time that this process loads a bundled model."""
    global _announced
    with _lock:
        if _announced:
            return
        _announced = True
    logging.getLogger("minclip").warning(
        "minclip: using the bundled %s, which knows drawn pictures such as emoji and icons, and photographs of "
        "groceries; for others %s",
        name,
        how_to_choose.get(),
    )
