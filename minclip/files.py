"""Files: JSON read with one line for what is wrong, and writing that happens whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from minclip.errors import MinclipError

# --- reading -------------------------------------------------------------------------------------------------------


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read. Raises OSError for a device or a named pipe, too, at which a reader could wait for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "is a folder, device or pipe where a file was expected", str(path))
    return path.open("rb")


def read_json(path: Path, error: type[MinclipError]) -> dict[str, Any]:
    """The JSON object in a file. Raises `error`, one line that names the file, where there is none."""
    try:
        with open_regular(path) as file:
            data = file.read()
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


# --- writing -------------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when it is complete; until then the old one stays as it was.

    Whoever has the old file mapped into memory keeps the old content. A symbolic link stays, and the file that it
    names is replaced; the permissions of an existing file are kept. Raises OSError for a folder, a device, a read-only
    file, and where writing fails.
    """
    with replacing_together() as begin:
        yield begin(path)


@contextmanager
def replacing_together() -> Iterator[Callable[[Path], BinaryIO]]:
    """Several files that take their places together once all of them are complete: call what is yielded with each path.

    Where anything fails before that, all of the old files stay as they were. Who writes to the same folder meanwhile
    waits for the moment of the replacing, so that the files of two writers are not mixed.
    """
    begun: list[_Replacement] = []

    def begin(path: Path) -> BinaryIO:
        begun.append(_Replacement(path))
        return begun[-1].file

    try:
        yield begin
        for replacement in begun:
            replacement.file.flush()
            os.fsync(replacement.file.fileno())
        with ExitStack() as locks:
            for folder in sorted({replacement.target.parent for replacement in begun}):
                locks.enter_context(_locked(folder))
            for replacement in begun:
                replacement.give_name()
            # all in one call to C code, so that no KeyboardInterrupt is raised between two of them
            deque(map(os.replace, [r.temporary for r in begun], [r.target for r in begun]), maxlen=0)
    finally:
        for replacement in begun:
            replacement.discard()


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that writing was killed under, between the file's completion and its place."""
    return re.fullmatch(r"\.[0-9a-f]{16}\.tmp", name) is not None


def write_together(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write files, name and content, into a folder, all of them or none."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing_together() as begin:
        for name, content in files.items():
            begin(folder / name).write(content)


class _Replacement:
    """A file being written beside `target`, whose place it will take.

    It has no name until it is complete where the system allows that (Linux's O_TMPFILE), so that a process that is
    killed leaves nothing behind; elsewhere it has a hidden one that ends in .tmp.
    """

    def __init__(self, path: Path) -> None:
        self.target = Path(os.path.realpath(path))
        old = _replaceable(path)
        self.temporary = self.target.with_name(f".{secrets.token_hex(8)}.tmp")
        self.has_name = False
        try:
            descriptor = self._open(0o666 if old is None else 0o600)  # less what the umask takes away
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None
        self.file = os.fdopen(descriptor, "wb")
        if old is not None and hasattr(os, "fchmod"):
            with suppress(OSError):  # who writes for another user may not be allowed to give the file to them
                os.fchown(descriptor, old.st_uid, old.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(old.st_mode))

    def _open(self, mode: int) -> int:
        if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):  # which `give_name` needs
            with suppress(OSError):  # some file systems do not know it
                return os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR, mode)
        self.has_name = True
        return os.open(self.temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), mode)

    def give_name(self) -> None:
        """Put the complete file into the folder, from where it can be moved to its place."""
        if not self.has_name:
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:  # naming the folder by its descriptor makes Python follow the link in /proc to the file
                os.link(f"/proc/self/fd/{self.file.fileno()}", self.temporary.name, dst_dir_fd=folder)
                self.has_name = True
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Close the file, and remove it where it has not taken its place."""
        with suppress(OSError):  # what a full disk did not take is lost with the file
            self.file.close()
        if self.has_name:
            self.temporary.unlink(missing_ok=True)


def _replaceable(path: Path) -> os.stat_result | None:
    """What stands at a path, None for nothing. Raises OSError where that is not to be replaced by a file."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(old.st_mode):
        raise OSError(errno.EEXIST, "is a folder, device or pipe, which no file replaces", str(path))
    if not (os.access(path, os.W_OK) and old.st_mode & 0o222):  # nothing is forbidden to root but by the mode
        raise PermissionError(errno.EACCES, "is read-only", str(path))
    return old


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes and threads that replace files in a folder waiting, where the system has such locks.

    They hold it for moments only; whoever holds it for longer has another purpose, and is not waited for.
    """
    try:
        import fcntl

        descriptor = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        for _ in range(1000):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:  # a file system without locks
                break
        yield
    finally:
        os.close(descriptor)  # which opens the lock
