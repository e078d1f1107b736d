"""The files of an index, and how they are written so that no moment of being stopped leaves them broken.

An index is a folder of two files, a third while it is written, and two more where it is large:

    pictures.sqlite   table pictures: path, size, mtime (nanoseconds), hash (of the content) and row;
                      table facts: the model, its fingerprint, the width of a vector, "draft" where JPEG files were
                      decoded so
    vectors.f32       little-endian float32, one row of `width` numbers after the other, each of unit length
    writer.lock       an SQLite file whose lock the writing process holds; the system frees it, however that ends
    approximate.*     an inverted file of the first rows, and facts about it: see `minclip.search.approximate`

Float32 and not float16: NumPy multiplies halves twenty times more slowly. Copies of a picture share a row. New vectors
go to rows that no picture points at, and are on the disk before the transaction that points at them: whoever is killed
between the two has written to rows that nobody reads.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from minclip.errors import SearchError
from minclip.files import is_temporary, one_line, read_json, replacing

PICTURES, VECTORS, LOCK = "pictures.sqlite", "vectors.f32", "writer.lock"
CELLS, CELLS_FACTS = "approximate.faiss", "approximate.json"
JOURNAL = "-journal"  # the ending of the file in which SQLite notes how to take back what was begun
IDENTITY, LAYOUT = 0x6D636C70, 1  # "mclp" in the SQLite header, and the version of the layout above
SCHEMA = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pictures (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, hash BLOB, row INTEGER) WITHOUT ROWID;
CREATE INDEX by_hash ON pictures (hash);
CREATE INDEX by_row ON pictures (row);
PRAGMA application_id = {IDENTITY};
PRAGMA user_version = {LAYOUT};
"""


@dataclass(slots=True)
class Picture:
    """What is known of a file; of one in an index all but `error`.

    path: absolute; names that are no UTF-8 as `os.fsdecode` writes them. size: in bytes. mtime: of modification, in
    nanoseconds. hash: SHA-256 of the content. row: of the vector. error: the line that says why it cannot be read.
    content: of a picture that lies in a tar.
    """

    path: str
    size: int = 0
    mtime: int = 0
    hash: bytes = b""
    row: int = -1
    error: str = ""
    content: bytes | None = None


class Store:
    """An open index. facts: "model" (where it was loaded from), "fingerprint", "width"; "draft" only where it is."""

    def __init__(self, folder: Path) -> None:
        """Open what is there. Raises SearchError where that is no whole index."""
        self.folder = folder
        self._mapped = np.empty((0, 0), np.float32)
        if not (folder / PICTURES).is_file():
            raise SearchError(f"{folder} is not an index; make one with minclip index FOLDER -o {folder}")
        with readable(folder):
            uri = f"{(folder / PICTURES).absolute().as_uri()}?mode=rw"  # which may finish what a killed writer began
            self.database = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
            sql = "SELECT * FROM pragma_application_id, pragma_user_version"
            ((identity, layout),) = self.database.execute(sql)
            if identity != IDENTITY:
                raise SearchError(f"{folder / PICTURES} is not of an index of minclip's; name another folder")
            if layout != LAYOUT:
                raise SearchError(f"{folder} has layout {layout}, this minclip reads {LAYOUT}; index the pictures anew")
            self.facts: dict[str, str] = dict(self.database.execute("SELECT name, value FROM facts"))
        self.width = int(self.facts["width"])
        self.vectors()

    @staticmethod
    def begun(folder: Path) -> bool:
        """Whether there is an index in a folder, with a picture in it. Raises SearchError for a foreign file."""
        if not (folder / PICTURES).is_file():
            return False
        with closing(Store(folder)) as store:
            return len(store) > 0

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, str]) -> Store:
        """A new index, empty, in the place of what was not begun."""
        with closing(sqlite3.connect(":memory:")) as database:
            database.executescript(SCHEMA)
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            database.commit()
            content = database.serialize()
        with writable(folder), replacing(folder / PICTURES) as file:
            file.write(content)
        return cls(folder)

    def close(self) -> None:
        self.database.close()

    @property
    def draft(self) -> bool:
        """Whether JPEG files were decoded at a part of their size, see `Model.encode_image`."""
        return "draft" in self.facts

    # --- reading ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return next(self._ask("SELECT count(*) FROM pictures"))[0]

    def pictures(self) -> Iterator[Picture]:
        """All pictures in the order of their paths, as bytes."""
        for path, *rest in self._ask("SELECT * FROM pictures ORDER BY path"):
            yield Picture(os.fsdecode(path), *rest)

    def paths_of(self, row: int) -> list[str]:
        """The paths of the pictures that point at a row: several are copies, none is a row that is free."""
        found = self._ask("SELECT path FROM pictures WHERE row = ? ORDER BY path", row)
        return [os.fsdecode(path) for (path,) in found]

    def height(self) -> int:
        """How many rows there are, those that no picture points at included."""
        return next(self._ask("SELECT ifnull(max(row) + 1, 0) FROM pictures"))[0]

    def _ask(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """The rows of an answer."""
        with readable(self.folder):
            yield from self.database.execute(query, parameters)

    def vectors(self) -> np.ndarray:
        """float32 (rows, width): the file, mapped into memory. Raises SearchError where it is too short."""
        height, path = self.height(), self.folder / VECTORS
        if height != len(self._mapped):
            expected, size = 4 * height * self.width, path.stat().st_size if path.is_file() else 0
            if size < expected:
                raise SearchError(
                    f"{path} is cut short: it has {size} bytes and {height} vectors are {expected}; "
                    f"delete {self.folder} and index the pictures anew"
                )
            mapped = np.memmap(path, "<f4", "r", shape=(height, self.width)) if height else np.empty((0, self.width))
            self._mapped = np.asarray(mapped)
        return self._mapped

    # --- writing ---------------------------------------------------------------------------------------------------

    @cached_property
    def free_rows(self) -> Iterator[int]:
        """Rows for new vectors, without end: those that no picture points at, then those beyond the last one.

        None of those in the inverted file, whose cells are of the vectors that they hold now.
        """
        facts = self.folder / CELLS_FACTS
        start = read_json(facts, SearchError)["rows"] if facts.is_file() else 0
        used = {row for (row,) in self._ask("SELECT DISTINCT row FROM pictures")}
        return (row for row in count(start) if row not in used)

    def record(self, pictures: Sequence[Picture], embed: Callable[[list[Picture]], np.ndarray]) -> None:
        """Put pictures into the index, and forget those of them that have an error.

        embed: gives the unit vectors (n, width) of the pictures whose content is new here, without those that it finds
        broken, whose `error` it sets. Sets each picture's `row`.
        """
        contents = {picture.hash: picture for picture in pictures if not picture.error}  # copies are one
        find = "SELECT row FROM pictures WHERE hash = ? LIMIT 1"
        rows = {content: row for content in contents for (row,) in self._ask(find, content)}
        new = [picture for content, picture in contents.items() if content not in rows]
        vectors = embed(new)
        fine = [picture.hash for picture in new if not picture.error]
        rows.update(zip(fine, self.free_rows, strict=False))
        self.write_vectors([rows[content] for content in fine], vectors)
        for picture in pictures:
            if not picture.error:
                picture.row, picture.error = rows.get(picture.hash, -1), contents[picture.hash].error
        self.commit([p for p in pictures if not p.error], [p.path for p in pictures if p.error])

    def write_vectors(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        """Put vectors (n, width) into rows that no picture points at; on the disk when this returns."""
        path = self.folder / VECTORS
        with writable(self.folder), open(path, "r+b" if path.exists() else "w+b") as file:
            for row, vector in zip(rows, vectors.astype("<f4"), strict=True):
                file.seek(4 * self.width * row)
                file.write(vector.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def commit(self, pictures: Iterable[Picture], gone: Iterable[str]) -> None:
        """Record pictures and forget the paths in `gone`: both or neither."""
        values = ((os.fsencode(p.path), p.size, p.mtime, p.hash, p.row) for p in pictures)
        with writable(self.folder), self.database:  # which commits at the end, and takes back what an error cut off
            self.database.execute("BEGIN IMMEDIATE")
            forgotten = ((os.fsencode(path),) for path in gone)
            self.database.executemany("DELETE FROM pictures WHERE path = ?", forgotten)
            self.database.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", values)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Within, this process alone writes the index in `folder`, which is made. Raises SearchError where another does."""
    left = {LOCK, f"{LOCK}{JOURNAL}"}  # by a beginning that was killed, beside files not yet in their places
    names = os.listdir(folder) if folder.is_dir() else []
    others = [name for name in names if name not in left and not is_temporary(name)]
    if others and not (folder / PICTURES).is_file():
        raise SearchError(f"{folder} is a folder of something else, with {others[0]} in it; name one for the index")
    if folder.exists() and not folder.is_dir():
        raise SearchError(f"{folder} is a file, and an index is a folder; name another")
    with writable(folder):
        folder.mkdir(exist_ok=True)
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
    with closing(lock):
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error:
            raise SearchError(f"{folder} is being written by another process; try again when that is done") from None
        yield


def discard(folder: Path) -> None:
    """Remove an index, and its folder where nothing else lies in it."""
    with suppress(OSError):
        for name in (PICTURES, f"{PICTURES}{JOURNAL}", VECTORS, CELLS, CELLS_FACTS, LOCK, f"{LOCK}{JOURNAL}"):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """SQLite's errors as one line that names the index."""
    try:
        yield
    except sqlite3.Error as error:
        raise SearchError(
            f"{folder} cannot be read as an index: {one_line(error)}; if it is damaged, delete it and index anew"
        ) from None


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """The errors of writing as one line that names the index."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise SearchError(f"{folder} cannot be written: {reason}; what was indexed before is kept") from None


def printable(name: str) -> str:
    """Text that UTF-8 can hold: bytes of a file's name that are none become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
