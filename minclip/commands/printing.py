"""What commands print: rankings, JSON, and lines on stderr."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the parser prints errors before it needs NumPy
    from minclip.ranking import Ranking

BAR = 30  # characters of a score's bar
CLEAR_LINE = "\r\x1b[K"  # takes the progress bar away before a line is printed


def complain(line: str) -> None:
    """A line on stderr, in the place of the progress bar where one may be there."""
    if sys.stderr is not None:
        print(f"{CLEAR_LINE if sys.stderr.isatty() else ''}minclip: {printable(line)}", file=sys.stderr)


def print_json(content: object) -> None:
    """One line of JSON, in letters of any script where stdout takes them."""
    utf8 = (sys.stdout.encoding or "utf-8").lower() == "utf-8"
    print(json.dumps(content, ensure_ascii=not utf8, allow_nan=False))


def bars(ranking: Ranking) -> list[str]:
    """A line per label. The label stands last: one written from right to left then moves nothing of the line."""
    return [f"{score:6.1%} {'█' * round(BAR * score):<{BAR}} {label}" for label, score in ranking]


def printable(name: str) -> str:
    """A file's name with control characters escaped: they may break a line, or command the terminal."""
    return "".join(f"\\x{ord(char):02x}" if char < " " or "\x7f" <= char <= "\x9f" else char for char in name)
