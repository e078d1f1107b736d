"""How the commands of this package end: an exit code, and one line where something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from minclip.errors import MinclipError


def exit_code(body: Callable[[], object], stopped: str) -> int:
    """Run a command's body: 0, 1 where something is wrong, 130 where it was interrupted. stopped: what is left then."""
    try:
        body()
    except (MinclipError, OSError, ImportError) as error:
        print(f"minclip: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"minclip: stopped; {stopped}", file=sys.stderr)
        return 130
    return 0
