"""Files: JSON read with one line for what is wrong, and writing that happens whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from minclip.errors import MinclipError


def read_json(path: Path, error: type[MinclipError]) -> dict[str, Any]:
    """The JSON object in a file. Raises `error`, one line that names the file, where there is none."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise error(f"{path} cannot be read as JSON: {one_line(problem)}") from None
    return parse_json(data, path, error)


def parse_json(data: bytes, source: str | Path, error: type[MinclipError]) -> dict[str, Any]:
    """The JSON object that a file's content is. Raises `error`, one line that names the source, where it is none."""
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError) as problem:  # ValueError: broken JSON, or bytes that are not UTF-8
        raise error(f"{source} cannot be read as JSON: {one_line(problem)}") from None
    if not isinstance(content, dict):
        raise error(f"{source} must hold a JSON object, not {type(content).__name__}")
    return content


def json_bytes(content: dict[str, Any]) -> bytes:
    """A JSON object as our files hold it: indented, sorted, a newline at the end."""
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def one_line(problem: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(problem).split())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when it is complete, and leaves no trace when it is not.

    Whoever has the old file mapped into memory keeps the old content.
    """
    with replacing_together() as begin:
        yield begin(path)


@contextmanager
def replacing_together() -> Iterator[Callable[[Path], BinaryIO]]:
    """Several files that take their places together once all of them are complete: call what is yielded with each path.

    Where anything fails before that, all of the old files stay as they were.
    """
    begun: list[tuple[Path, Path, BinaryIO]] = []

    def begin(path: Path) -> BinaryIO:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        file = temporary.open("wb")
        begun.append((path, temporary, file))
        return file

    try:
        yield begin
        for _, _, file in begun:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for path, temporary, _ in begun:
            temporary.replace(path)
    finally:
        for _, temporary, file in begun:
            with suppress(OSError):  # a full disk fails here once more
                file.close()
            temporary.unlink(missing_ok=True)
