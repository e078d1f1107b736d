"""How the commands of this package end: an exit code, and one line where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from minclip.errors import MinclipError


def exit_code(body: Callable[[], object], when_stopped: str) -> int:
    """Run a command's body. Returns 0, 1 for an error, 130 for an interrupt, after which `when_stopped` is printed."""
    try:
        body()
    except (MinclipError, OSError, ImportError) as error:
        print(f"minclip: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"minclip: stopped; {when_stopped}", file=sys.stderr)
        return 130
    return 0
