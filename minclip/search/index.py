"""`Index`: pictures that were embedded once, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minclip.model import Model
from minclip.search import build
from minclip.search.approximate import Approximate, best
from minclip.search.query import Query, query_vector
from minclip.search.store import Store


class Match(NamedTuple):
    """A picture and its cosine with the query."""

    path: str
    score: float


class Index:
    """Pictures on disk and their vectors. Get one with `Index.build` or `Index.open`.

    It sees what another process adds while it is open. The folder's layout is described in `minclip.search.store`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._model: Model | None = None

    def __repr__(self) -> str:
        return f"<minclip.Index {self.store.folder}: {len(self)} pictures, of {self.store.facts['model']}>"

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """The index at `path`. Raises SearchError where there is none, or where it is damaged."""
        return cls(Store(Path(path)))

    @classmethod
    def build(
        cls,
        folders: str | Path | Sequence[str | Path],
        path: str | Path,
        *,
        model: str | Path | Model | None = None,
        batch_size: int = 32,
        draft: bool | None = None,
        progress: bool = False,
        on_error: Callable[[str], None] = lambda line: None,
    ) -> Index:
        """The index at `path`, made or brought up to date: see `minclip.search.build.build`, which also counts."""
        build.build(
            folders, path, model=model, batch_size=batch_size, draft=draft, progress=progress, on_error=on_error
        )
        return cls.open(path)

    def close(self) -> None:
        self.store.close()

    def __len__(self) -> int:
        return len(self.store)

    @property
    def paths(self) -> list[str]:
        """The absolute paths of all pictures, sorted."""
        return [picture.path for picture in self.store.pictures()]

    def search(
        self, query: Query, top_k: int = 10, model: str | Path | Model | None = None, *, exact: bool = False
    ) -> list[Match]:
        """The `top_k` pictures whose cosine with the query is largest, best first; copies of one picture are all there.

        query: a text in any language of the model, a picture, or a list of these with signs between them and weights,
        `["2:golden retriever", "+", "pool.jpg", "-", "fruit"]` (see `minclip.search.query`). model: None loads the one
        that the index was made with. exact: compare with every vector, even where a large index has a faster way.
        Raises SearchError for another model, ImageError for an unreadable picture.
        """
        return self.nearest(query_vector(query, self.model(model), draft=self.store.draft), top_k, exact=exact)

    def nearest(self, vector: np.ndarray, top_k: int = 10, *, exact: bool = False) -> list[Match]:
        """The same for a unit vector (width,)."""
        if not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}")
        for rows, scores in self._compared(vector, top_k, exact):
            wanted = top_k
            while True:
                order = best(scores, wanted)
                pairs = zip(rows[order].tolist(), scores[order].tolist(), strict=True)
                found = [Match(path, score) for row, score in pairs for path in self.store.paths_of(row)]
                if len(found) >= top_k:
                    return found[:top_k]
                if wanted >= len(rows):
                    break
                wanted *= 4  # some of the rows are of pictures that are gone
        return found

    def _compared(self, vector: np.ndarray, count: int, exact: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows (n,) and their scores: where there is an inverted file, first those that it finds near; then all."""
        vectors, approximate = self.store.vectors(), None if exact else self.approximate
        if approximate is not None and count < approximate.rows <= len(vectors):
            height = approximate.rows
            near = approximate.candidates(vector, count)
            scores = np.concatenate([vectors[near] @ vector, vectors[height:] @ vector])
            yield np.concatenate([near, np.arange(height, len(vectors))]), scores
        yield np.arange(len(vectors)), vectors @ vector

    @cached_property
    def approximate(self) -> Approximate | None:
        """What `search` looks into where the index is large (see `minclip.search.approximate`); None: at everything."""
        return Approximate.open(self.store.folder)

    def model(self, given: str | Path | Model | None = None) -> Model:
        """The model that the index was made with, loaded once; or the one given, if it is the same."""
        if given is None and self._model is not None:
            return self._model
        self._model = build.model_of(self.store, given)
        return self._model
