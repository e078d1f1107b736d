"""Bringing an index up to date with folders of pictures."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from minclip.errors import ImageError, SearchError
from minclip.fingerprint import fingerprint, origin
from minclip.images import pictures_below
from minclip.loading import load
from minclip.model import Model
from minclip.pipeline import Progress, ahead, default_workers
from minclip.search.approximate import free_rows
from minclip.search.store import Picture, Store, discard, one_writer

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
    draft: bool | None = None,
    progress: bool = False,
    on_error: Callable[[str], None] = lambda line: None,
) -> Changes:
    """Index the pictures below folders: embed what is new or changed, follow what was renamed, drop what is gone.

    path: the index, made where there is none. Pictures in it from other folders stay. model: None is the index's own,
    of a new index the bundled default. draft: as for `Model.encode_image`; None is as the index was made, of a new one
    False. on_error: is given a line for each file or folder that cannot be read.
    Raises SearchError where the index is of another model or was made with another `draft`, is being written, or cannot
    be written, and where a folder is missing or holds no pictures; what was indexed before is kept. Stopped at any
    moment, it loses the step in work (about two seconds) and goes on where it was.
    """
    target, changes = Path(path), Changes()

    def unreadable(path: str, line: str) -> None:
        changes.unreadable.append(path)
        on_error(line)

    given = [folders] if isinstance(folders, str | Path) else folders
    there = scan([os.path.abspath(folder) for folder in given], unreadable)
    with one_writer(target):
        try:
            store, used = _opened(target, model, draft)
            with closing(store):
                _update(store, used, there, changes, unreadable, batch_size=batch_size, progress=progress)
        finally:
            if not Store.begun(target):  # nothing could be read: the index that was to be made is none
                discard(target)
    return changes


def _opened(path: Path, model: str | Path | Model | None, draft: bool | None) -> tuple[Store, Model]:
    """The index at `path`, made where there is none, and the model, surely the one it was made with."""
    if Store.begun(path):
        store = Store(path)
        if not isinstance(model, Model):
            model = load(store.facts["model"] if model is None else model)
        check_model(store, model)
        if draft not in (None, store.draft):
            made, given = ("with" if store.draft else "without"), ("with" if draft else "without")
            raise SearchError(f"{path} was made {made} draft, so it cannot go on {given} it; index to another place")
        return store, model
    if not isinstance(model, Model):
        model = load(model)
    facts = {"model": origin(model), "fingerprint": fingerprint(model), "width": str(model.config.projection_dim)}
    return Store.create(path, facts | draft_fact(bool(draft))), model


def draft_fact(draft: bool) -> dict[str, str]:
    """What an index's or a shard's facts have of `draft`: nothing where it was not asked for."""
    return {"draft": "true"} if draft else {}


def check_model(store: Store, model: Model) -> None:
    """Raises SearchError where the index was not made with this model."""
    if fingerprint(model) != store.facts["fingerprint"]:
        raise SearchError(
            f"{store.folder} was made with {store.facts['model']} (fingerprint {store.facts['fingerprint'][:12]}) and "
            f"{model.source} is another model; name that one, or index the pictures anew to another place"
        )


# --- from a path to a vector, for an index and for shards ----------------------------------------------------------


def stated(path: str) -> Picture:
    """A file with its size and modification time, or with the error."""
    try:
        status = os.stat(path)
    except OSError as error:
        return Picture(path, error=f"{path} cannot be read: {error.strerror}")
    return Picture(path, status.st_size, status.st_mtime_ns)


def hashed(picture: Picture) -> Picture:
    """With the hash of its content, or the error."""
    try:
        if not picture.error:
            with open(picture.path, "rb") as content:
                picture.hash = hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        picture.error = f"{picture.path} cannot be read: {error.strerror}"
    return picture


def embed(
    model: Model, pictures: Sequence[Picture], sources: Sequence[Any], *, batch_size: int, draft: bool
) -> np.ndarray:
    """Unit vectors (n, width) of pictures, opened from `sources`; the broken ones get their error and no vector."""
    errors: dict[int, ImageError] = {}
    if not pictures:
        return np.zeros((0, model.config.projection_dim), np.float32)
    vectors = model.encode_image(sources, batch_size=batch_size, draft=draft, on_error=errors.__setitem__)
    for index, error in errors.items():
        pictures[index].error = str(error)
    return vectors


# --- what is there, and what follows -------------------------------------------------------------------------------


@dataclass
class There:
    """What lies below some folders: files by path, sorted; and the folders below them that cannot be read."""

    folders: list[str]
    files: dict[str, Picture] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def lacks(self, path: str) -> bool:
        """Whether a path is known not to exist: it lies below the folders, and could be seen."""
        return path not in self.files and below(path, self.folders) and not below(path, self.unreadable)


def below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)


def scan(folders: Sequence[str], unreadable: Callable[[str, str], None]) -> There:
    """The picture files below absolute folders.

    Raises SearchError where a folder of these is missing or holds no picture: a disk that is not mounted, perhaps.
    """
    there = There(list(folders))

    def skip_folder(error: OSError) -> None:
        there.unreadable.append(error.filename)
        unreadable(error.filename, f"{error.filename} cannot be read: {error.strerror}")

    for folder in folders:
        if not os.path.isdir(folder):
            raise SearchError(f"{folder} is not a folder; name folders of pictures")
        paths = pictures_below(folder, skip_folder)
        if not paths:
            raise SearchError(f"{folder} holds no picture files that can be read; nothing was changed")
        there.files.update((path, stated(path)) for path in paths)
    there.files = dict(sorted(there.files.items()))
    return there


def _update(
    store: Store,
    model: Model,
    there: There,
    changes: Changes,
    unreadable: Callable[[str, str], None],
    *,
    batch_size: int,
    progress: bool,
) -> None:
    """Step by step, each committed: what is new or changed. At the end what is gone, since it may have been renamed."""
    known = {picture.path: picture for picture in store.pictures()}
    gone = [path for path in known if there.lacks(path)]
    missing = Counter(known[path].hash for path in gone)
    states = {path: (picture.size, picture.mtime) for path, picture in known.items()}
    todo = [picture for path, picture in there.files.items() if states.get(path) != (picture.size, picture.mtime)]
    changes.unchanged = len(there.files) - len(todo)
    settled = time.time_ns() - SETTLED
    for picture in todo:
        picture.mtime = picture.mtime if picture.mtime < settled else UNSETTLED
    free, bar, size = free_rows(store), Progress("pictures", len(todo), show=progress), batch_size

    def embedded(new: list[Picture]) -> np.ndarray:
        return embed(model, new, [picture.path for picture in new], batch_size=batch_size, draft=store.draft)

    with closing(ahead(hashed, todo, workers=default_workers(), depth=4 * batch_size)) as files:
        while step := list(islice(files, size)):
            start = time.monotonic()
            store.record(step, embedded, free)
            for picture in step:
                if picture.error:
                    unreadable(picture.path, picture.error)
                elif picture.path in known:
                    same = known[picture.path].hash == picture.hash
                    changes.unchanged += same
                    changes.changed += not same
                elif missing[picture.hash] > 0:
                    missing[picture.hash] -= 1
                    changes.renamed += 1
                else:
                    changes.added += 1
            bar.advance(len(step))
            paced = size * STEP_SECONDS / (time.monotonic() - start)
            size = max(batch_size, min(2 * size, int(paced) // batch_size * batch_size))
    bar.close()
    store.commit([], gone)
    changes.removed = len(gone) - changes.renamed
