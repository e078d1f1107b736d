"""Bringing an index up to date with folders of pictures."""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from minclip.errors import ImageError, SearchError
from minclip.fingerprint import origin
from minclip.images import pictures_below
from minclip.loading import load
from minclip.model import Model
from minclip.pipeline import Progress, ahead, default_workers
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
    given = [os.path.abspath(f) for f in ([folders] if isinstance(folders, str | Path) else folders)]
    changes = Changes()

    def unreadable(path: str, line: str) -> None:
        changes.unreadable.append(path)
        on_error(line)

    files = scan(given, unreadable)
    with _opened(Path(path), model, draft) as (store, used):
        known = {picture.path: picture for picture in store.pictures()}
        gone = [name for name in known if name not in files and below(name, given)]
        gone = [name for name in gone if not below(name, changes.unreadable)]  # which are folders, so far
        missing = Counter(known[name].hash for name in gone)
        states = {name: (picture.size, picture.mtime) for name, picture in known.items()}
        todo = [picture for name, picture in files.items() if states.get(name) != (picture.size, picture.mtime)]
        changes.unchanged = len(files) - len(todo)
        for picture in _recorded(store, used, todo, batch_size, Progress("pictures", len(todo), show=progress)):
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
        store.commit([], gone)  # at the end, since it may have been renamed
        changes.removed = len(gone) - changes.renamed
    return changes


@contextmanager
def _opened(path: Path, model: str | Path | Model | None, draft: bool | None) -> Iterator[tuple[Store, Model]]:
    """The index at `path`, to be written, made where there is none, and the model, surely the one it was made with."""
    with one_writer(path):
        try:
            if Store.begun(path):
                store = Store(path)
                model = model_of(store, model)
            else:
                model = model if isinstance(model, Model) else load(model)
                width = str(model.config.projection_dim)
                store = Store.create(path, facts_of(model, bool(draft)) | {"width": width})
            with closing(store):
                if draft not in (None, store.draft):
                    made, wanted = ("with" if one else "without" for one in (store.draft, draft))
                    raise SearchError(
                        f"{path} was made {made} draft, so it cannot go on {wanted} it; index to another place"
                    )
                yield store, model
        finally:
            if not Store.begun(path):  # nothing could be read: the index that was to be made is none
                discard(path)


def _recorded(store: Store, model: Model, todo: Sequence[Picture], batch_size: int, bar: Progress) -> Iterator[Picture]:
    """New and changed pictures, or what is wrong with them, when the step that they belong to is in the index."""
    settled = time.time_ns() - SETTLED
    for picture in todo:
        picture.mtime = picture.mtime if picture.mtime < settled else UNSETTLED
    embedded, size = partial(embed, model, batch_size=batch_size, draft=store.draft), batch_size
    with closing(ahead(hashed, todo, workers=default_workers(), depth=4 * batch_size)) as pictures:
        while step := list(islice(pictures, size)):
            start = time.monotonic()
            store.record(step, embedded)
            bar.advance(len(step))
            paced = size * STEP_SECONDS / (time.monotonic() - start)
            size = max(batch_size, min(2 * size, int(paced) // batch_size * batch_size))
            yield from step


def facts_of(model: Model, draft: bool) -> dict[str, str]:
    """What an index or a shard remembers of how its vectors were made; "draft" only where it was asked for."""
    return {"model": origin(model), "fingerprint": model.fingerprint} | ({"draft": "true"} if draft else {})


def model_of(store: Store, given: str | Path | Model | None) -> Model:
    """The model that an index was made with, or the one given. Raises SearchError where that is another one."""
    model = given if isinstance(given, Model) else load(store.facts["model"] if given is None else given)
    if model.fingerprint != store.facts["fingerprint"]:
        raise SearchError(
            f"{store.folder} was made with {store.facts['model']} (fingerprint {store.facts['fingerprint'][:12]}) and "
            f"{model.source} is another model; name that one, or index the pictures anew to another place"
        )
    return model


# --- from a path to a vector, for an index and for shards ----------------------------------------------------------


def stated(path: str) -> Picture:
    """A file with its size and modification time; without, where `hashed` will find the error."""
    with suppress(OSError):
        status = os.stat(path)
        return Picture(path, status.st_size, status.st_mtime_ns)
    return Picture(path)


def hashed(picture: Picture) -> Picture:
    """With the hash of its content, or the error that it has or that reading it gives."""
    try:
        if not picture.error:
            with open(picture.path, "rb") if picture.content is None else io.BytesIO(picture.content) as content:
                picture.hash = hashlib.file_digest(content, "sha256").digest()
    except OSError as error:
        picture.error = f"{picture.path} cannot be read: {error.strerror}"
    return picture


def embed(model: Model, pictures: Sequence[Picture], *, batch_size: int, draft: bool) -> np.ndarray:
    """Unit vectors (n, width) of pictures; the broken ones get their error and no vector."""

    def broken(index: int, error: ImageError) -> None:
        pictures[index].error = str(error)

    if not pictures:
        return np.zeros((0, model.config.projection_dim), np.float32)
    sources = [picture.path if picture.content is None else picture.content for picture in pictures]
    return model.encode_image(sources, batch_size=batch_size, draft=draft, on_error=broken)


# --- what is there, and what follows -------------------------------------------------------------------------------


def below(path: str, folders: Sequence[str]) -> bool:
    return any(path.startswith(os.path.join(folder, "")) for folder in folders)


def scan(folders: Sequence[str], unreadable: Callable[[str, str], None]) -> dict[str, Picture]:
    """The picture files below absolute folders by their paths, sorted.

    Raises SearchError where a folder of these is missing or holds no picture: a disk that is not mounted, perhaps.
    """

    def skip_folder(error: OSError) -> None:
        unreadable(error.filename, f"{error.filename} cannot be read: {error.strerror}")

    files: dict[str, Picture] = {}
    for folder in folders:
        if not os.path.isdir(folder):
            raise SearchError(f"{folder} is not a folder; name folders of pictures")
        paths = pictures_below(folder, skip_folder)
        if not paths:
            raise SearchError(f"{folder} holds no picture files that can be read; nothing was changed")
        files.update((path, stated(path)) for path in paths)
    return dict(sorted(files.items()))
