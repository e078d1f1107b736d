"""Bringing an index up to date with folders of pictures."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from minclip.errors import ImageError, SearchError
from minclip.fingerprint import fingerprint
from minclip.images import image_suffixes
from minclip.loading import load
from minclip.model import Model
from minclip.pipeline import Progress, ahead, default_workers
from minclip.search.approximate import free_rows
from minclip.search.store import Picture, Store, one_writer

STEP_SECONDS = 2.0  # of work that a step is made to last: what is lost, at most, when the process is killed
SETTLED = 2 * 10**9  # nanoseconds: a file younger than this may change again within one tick of its file system's clock
UNSETTLED = -1  # the modification time that is recorded of such a file, so that the next run hashes it again


@dataclass
class Changes:
    """What a run found. A new copy of another picture counts as added. unreadable: paths of files and folders."""

    added: int = 0
    changed: int = 0
    renamed: int = 0
    removed: int = 0
    unchanged: int = 0
    unreadable: list[str] = field(default_factory=list)


def build(
    folders: str | Path | Sequence[str | Path],
    path: str | Path,
    *,
    model: str | Path | Model | None = None,
    batch_size: int = 32,
    progress: bool = False,
    on_error: Callable[[str], None] = lambda line: None,
) -> Changes:
    """Index the pictures below folders: embed what is new or changed, follow what was renamed, drop what is gone.

    path: the index, made where there is none. Pictures in it from other folders stay. model: None is the index's own,
    of a new index the bundled default. on_error: is given a line for each file or folder that cannot be read.
    Raises SearchError where the index is of another model, is being written, or cannot be written, and where a folder
    is missing or holds no pictures; what was indexed before is kept. Stopped at any moment, it loses the step in work
    (about two seconds) and goes on where it was.
    """
    target, changes = Path(path), Changes()

    def unreadable(path: bytes, line: str) -> None:
        changes.unreadable.append(os.fsdecode(path))
        on_error(line)

    given = [folders] if isinstance(folders, str | Path) else list(folders)
    there = scan([os.fsencode(os.path.abspath(folder)) for folder in given], unreadable)
    with one_writer(target):
        try:
            store, used = _opened(target, model)
            with closing(store):
                _update(store, used, there, changes, unreadable, batch_size=batch_size, progress=progress)
        finally:
            if not Store.begun(target):  # nothing could be read: the index that was to be made is none
                shutil.rmtree(target, ignore_errors=True)
    return changes


def _opened(path: Path, model: str | Path | Model | None) -> tuple[Store, Model]:
    """The index at `path`, made where there is none, and the model, surely the one it was made with."""
    if Store.begun(path):
        store = Store(path)
        if not isinstance(model, Model):
            model = load(store.facts["model"] if model is None else model)
        check_model(store, model)
        return store, model
    if not isinstance(model, Model):
        model = load(model)
    source = os.path.abspath(model.source) if os.path.isdir(model.source) else model.source
    facts = {"model": source, "fingerprint": fingerprint(model), "width": str(model.config.projection_dim)}
    return Store.create(path, facts), model


def check_model(store: Store, model: Model) -> None:
    """Raises SearchError where the index was not made with this model."""
    if fingerprint(model) != store.facts["fingerprint"]:
        raise SearchError(
            f"{store.folder} was made with {store.facts['model']} (fingerprint {store.facts['fingerprint'][:12]}) and "
            f"{model.source} is another model; name that one, or index the pictures anew to another place"
        )


# --- what is there -------------------------------------------------------------------------------------------------


@dataclass
class There:
    """What lies below some folders: of each picture file size and modification time (ns), sorted by path."""

    folders: list[bytes]
    files: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    unreadable_folders: list[bytes] = field(default_factory=list)

    def covers(self, path: bytes) -> bool:
        """Whether a path that is not in `files` is known not to exist: it lies below the folders, and could be seen."""
        return below(path, self.folders) and not below(path, self.unreadable_folders)


def below(path: bytes, folders: Sequence[bytes]) -> bool:
    return any(path.startswith(os.path.join(folder, b"")) for folder in folders)


def scan(folders: Sequence[bytes], unreadable: Callable[[bytes, str], None], also: tuple[bytes, ...] = ()) -> There:
    """The picture files below absolute folders, and those that end in `also`.

    Links to folders are not followed: they may lead in circles.

    Raises SearchError where a folder of these is missing or holds no picture: a disk that is not mounted, perhaps.
    """
    endings = *(ending.encode() for ending in image_suffixes()), *also
    there = There(list(folders))

    def skip(path: bytes, error: OSError) -> None:
        unreadable(path, f"{os.fsdecode(path)} cannot be read: {error.strerror}")

    def skip_folder(error: OSError) -> None:
        there.unreadable_folders.append(os.fsencode(error.filename))
        skip(there.unreadable_folders[-1], error)

    for folder in folders:
        name = os.fsdecode(folder)
        if not os.path.isdir(folder):
            raise SearchError(f"{name} is not a folder; name folders of pictures")
        pictures = 0
        for parent, _, names in os.walk(folder, onerror=skip_folder):
            for path in (os.path.join(parent, each) for each in names if each.lower().endswith(endings)):
                pictures += 1
                try:
                    status = os.stat(path)
                except OSError as error:
                    skip(path, error)
                else:
                    there.files[path] = status.st_size, status.st_mtime_ns
        if not pictures:
            raise SearchError(f"{name} holds no picture files that can be read; nothing was changed")
    there.files = dict(sorted(there.files.items()))
    return there


@dataclass
class File:
    """A file that is new or may have changed. error: the line that says why it cannot be read."""

    path: bytes
    size: int
    mtime: int
    hash: bytes = b""
    error: str = ""


def hashed(file: File) -> File:
    """With the hash of its content, or the error."""
    try:
        with open(file.path, "rb") as content:
            file.hash = hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        file.error = f"{os.fsdecode(file.path)} cannot be read: {error.strerror}"
    return file


# --- what follows --------------------------------------------------------------------------------------------------


def _update(
    store: Store,
    model: Model,
    there: There,
    changes: Changes,
    unreadable: Callable[[bytes, str], None],
    *,
    batch_size: int,
    progress: bool,
) -> None:
    """Step by step, each committed: what is new or changed. At the end what is gone, since it may have been renamed."""
    known = store.states()
    gone = [path for path in known if path not in there.files and there.covers(path)]
    missing = Counter(store.hashes_of(gone))
    todo = [File(path, *state) for path, state in there.files.items() if known.get(path) != state]
    changes.unchanged = len(there.files) - len(todo)
    embed = partial(_embed, store, model, free_rows(store), batch_size)
    settled = time.time_ns() - SETTLED
    bar, size = Progress("pictures", len(todo), show=progress), batch_size
    with closing(ahead(hashed, todo, workers=default_workers(), depth=4 * batch_size)) as files:
        while step := list(islice(files, size)):
            start = time.monotonic()
            rows = embed(step)
            broken = [file for file in step if file.error]
            for file in broken:
                unreadable(file.path, file.error)
            fine = [file for file in step if not file.error]
            for file in fine:
                if file.path in known:
                    same = next(store.hashes_of([file.path])) == file.hash
                    changes.unchanged += same
                    changes.changed += not same
                elif missing[file.hash] > 0:
                    missing[file.hash] -= 1
                    changes.renamed += 1
                else:
                    changes.added += 1
            pictures = [
                Picture(f.path, f.size, f.mtime if f.mtime < settled else UNSETTLED, f.hash, rows[f.hash]) for f in fine
            ]
            store.commit(pictures, [file.path for file in broken])
            bar.advance(len(step))
            paced = size * STEP_SECONDS / (time.monotonic() - start)
            size = max(batch_size, min(2 * size, int(paced) // batch_size * batch_size))
    bar.close()
    store.commit([], gone)
    changes.removed = len(gone) - changes.renamed


def _embed(store: Store, model: Model, free: Iterator[int], batch_size: int, step: Sequence[File]) -> dict[bytes, int]:
    """The row of each content in a step, written where it is new; files that are no pictures are marked."""
    rows = {file.hash: store.row_of(file.hash) for file in step if not file.error}
    new = {file.hash: file for file in step if file.hash in rows and rows[file.hash] is None}
    errors: dict[int, ImageError] = {}
    if new:
        paths = [os.fsdecode(file.path) for file in new.values()]
        vectors = model.encode_image(paths, batch_size=batch_size, on_error=errors.__setitem__)
        contents = [content for index, content in enumerate(new) if index not in errors]
        if not np.isfinite(vectors).all():
            raise SearchError(f"{model.source} gives no finite numbers for pictures such as {paths[0]}")
        places = list(islice(free, len(contents)))
        store.write_vectors(places, vectors)
        rows.update(zip(contents, places, strict=True))
    reasons = {content: str(errors[index]) for index, content in enumerate(new) if index in errors}
    for file in step:
        file.error = file.error or reasons.get(file.hash, "")
    return {content: row for content, row in rows.items() if row is not None}
