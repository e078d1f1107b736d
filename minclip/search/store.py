"""The files of an index, and how they are written so that no moment of being stopped leaves them broken.

An index is a folder of two files, and a third while it is written:

    pictures.sqlite   table pictures: path, size, mtime (nanoseconds), hash (of the content) and row;
                      table facts: the model, its fingerprint, the width of a vector
    vectors.f32       little-endian float32, one row of `width` numbers after the other, each of unit length
    writer.lock       an SQLite file whose lock the writing process holds; the system frees it, however that ends

Float32 and not float16: NumPy multiplies halves twenty times more slowly. Copies of a picture share a row. New vectors
go to rows that no picture points at, and are on the disk before the transaction that points at them: whoever is killed
between the two has written to rows that nobody reads.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minclip.errors import SearchError
from minclip.files import one_line

PICTURES, VECTORS, LOCK = "pictures.sqlite", "vectors.f32", "writer.lock"
IDENTITY, LAYOUT = 0x6D636C70, 1  # "mclp" in the SQLite header, and the version of the layout above
SCHEMA = f"""
BEGIN IMMEDIATE;
DROP TABLE IF EXISTS facts;
DROP TABLE IF EXISTS pictures;
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE pictures (path BLOB PRIMARY KEY, size INTEGER, mtime INTEGER, hash BLOB, row INTEGER) WITHOUT ROWID;
CREATE INDEX by_hash ON pictures (hash);
CREATE INDEX by_row ON pictures (row);
PRAGMA application_id = {IDENTITY};
PRAGMA user_version = {LAYOUT};
"""


class Picture(NamedTuple):
    """What an index knows of a file. path: as bytes, since names need not be UTF-8."""

    path: bytes
    size: int
    mtime: int
    hash: bytes
    row: int


class Store:
    """An open index. facts: "model" (where it was loaded from), "fingerprint", "width"."""

    def __init__(self, folder: Path) -> None:
        """Open what is there. Raises SearchError where that is no whole index."""
        self.folder = folder
        self._mapped = np.empty((0, 0), np.float32)
        if not (folder / PICTURES).is_file():
            raise SearchError(f"{folder} is not an index; make one with minclip index FOLDER -o {folder}")
        with readable(folder):
            uri = f"{(folder / PICTURES).absolute().as_uri()}?mode=rw"  # which may finish what a killed writer began
            self.database = sqlite3.connect(uri, uri=True, timeout=30, isolation_level=None, check_same_thread=False)
            identity, layout = (
                self.database.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
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
        with readable(folder), closing(sqlite3.connect(folder / PICTURES)) as database:
            if not database.execute("PRAGMA schema_version").fetchone()[0]:
                return False
        with closing(Store(folder)) as store:
            return len(store) > 0

    @classmethod
    def create(cls, folder: Path, facts: Mapping[str, str]) -> Store:
        """A new index, empty, in the place of what was not begun."""
        with writable(folder), closing(sqlite3.connect(folder / PICTURES, isolation_level=None)) as database:
            database.executescript(SCHEMA)
            database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            database.execute("COMMIT")
        return cls(folder)

    def close(self) -> None:
        self.database.close()

    # --- reading ---------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        with readable(self.folder):
            return int(self.database.execute("SELECT count(*) FROM pictures").fetchone()[0])

    def pictures(self) -> Iterator[Picture]:
        """All pictures in the order of their paths."""
        with readable(self.folder):
            yield from map(Picture._make, self.database.execute("SELECT * FROM pictures ORDER BY path"))

    def states(self) -> dict[bytes, tuple[int, int]]:
        """Size and modification time of each picture when it was read."""
        with readable(self.folder):
            query = "SELECT path, size, mtime FROM pictures"
            return {path: (size, mtime) for path, size, mtime in self.database.execute(query)}

    def hashes_of(self, paths: Iterable[bytes]) -> Iterator[bytes]:
        """The hashes of the contents of pictures."""
        with readable(self.folder):
            for path in paths:
                yield self.database.execute("SELECT hash FROM pictures WHERE path = ?", (path,)).fetchone()[0]

    def paths_of(self, rows: Sequence[int]) -> dict[int, list[bytes]]:
        """The paths of the pictures that point at each of these rows; a row that has none is left out."""
        found: dict[int, list[bytes]] = {}
        query = "SELECT path FROM pictures WHERE row = ? ORDER BY path"
        with readable(self.folder):
            for row in rows:
                if paths := [path for (path,) in self.database.execute(query, (row,))]:
                    found[row] = paths
        return found

    def row_of(self, content: bytes) -> int | None:
        """The row of the pictures with this hash."""
        with readable(self.folder):
            found = self.database.execute("SELECT row FROM pictures WHERE hash = ? LIMIT 1", (content,)).fetchone()
        return None if found is None else int(found[0])

    def height(self) -> int:
        """How many rows there are, those that no picture points at included."""
        with readable(self.folder):
            return int(self.database.execute("SELECT ifnull(max(row) + 1, 0) FROM pictures").fetchone()[0])

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

    def free_rows(self, start: int = 0) -> Iterator[int]:
        """The rows from `start` that no picture points at, then those beyond the last one, without end."""
        with readable(self.folder):
            used = {row for (row,) in self.database.execute("SELECT DISTINCT row FROM pictures")}
        height = max(start, self.height())
        yield from (row for row in range(start, height) if row not in used)
        while True:
            yield height
            height += 1

    # --- writing ---------------------------------------------------------------------------------------------------

    def write_vectors(self, rows: Sequence[int], vectors: np.ndarray) -> None:
        """Put vectors (n, width) into rows that no picture points at; on the disk when this returns."""
        with writable(self.folder), open(self.folder / VECTORS, "r+b" if self.has_vectors() else "w+b") as file:
            for row, vector in zip(rows, vectors.astype("<f4"), strict=True):
                file.seek(4 * self.width * row)
                file.write(vector.tobytes())
            file.flush()
            os.fsync(file.fileno())

    def has_vectors(self) -> bool:
        return (self.folder / VECTORS).exists()

    def commit(self, pictures: Iterable[Picture], gone: Iterable[bytes]) -> None:
        """Record pictures and forget the paths in `gone`: both or neither."""
        with writable(self.folder):
            self.database.execute("BEGIN IMMEDIATE")
            try:
                self.database.executemany("DELETE FROM pictures WHERE path = ?", [(path,) for path in gone])
                self.database.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", pictures)
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:  # SQLite has taken it back by itself where the disk was full
                    self.database.execute("ROLLBACK")
                raise


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Within, this process alone writes the index in `folder`, which is made. Raises SearchError where another does."""
    others = [] if not folder.is_dir() else [name for name in os.listdir(folder) if name not in (PICTURES, LOCK)]
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
