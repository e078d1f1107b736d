"""Searching a part of the vectors only: an inverted file of FAISS (Johnson, Douze and Jegou 2017), for large indexes.

The vectors are sorted into cells around centres found by k-means, in 8 bits a number; a query looks into the `probes`
cells whose centres are nearest. What it finds there is compared with the query anew, from the index's own vectors, so
the scores are exact and only the choice is approximate: `recall` says how much of the exact answer it holds.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minclip.errors import SearchError
from minclip.files import read_json, replacing_together
from minclip.search.store import CELLS as FILE
from minclip.search.store import CELLS_FACTS as FACTS
from minclip.search.store import Store, one_writer, writable

FROM = 1_000_000  # vectors; below, the exact answer takes a moment
RECALL, AT, QUERIES = 0.95, 10, 64  # what is aimed at, at how many results, measured on how many pictures of the index
SPARE = 4  # times as many are taken from the cells as are wanted, to be compared anew
GROWTH = 0.1  # of the vectors, that may be new before the cells are made anew; until then those are searched exactly


@dataclass
class Approximate:
    """The inverted file beside an index: its first `rows` vectors, in cells.

    recall: the share of the exact 10 best that was found.
    """

    cells: Any
    rows: int
    recall: float

    @property
    def probes(self) -> int:
        """Into how many cells a query looks."""
        return self.cells.nprobe

    @classmethod
    def open(cls, folder: Path) -> Approximate | None:
        """That of an index; None where it has none, or FAISS is not installed."""
        if not (folder / FACTS).is_file():
            return None
        try:
            import faiss
        except ImportError:
            return None
        facts = read_json(folder / FACTS, SearchError)
        try:
            cells = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:
            raise SearchError(f"{folder / FILE} cannot be read; delete it and {FACTS} beside it") from None
        return cls(cells, facts["rows"], facts["recall"])

    def candidates(self, vector: np.ndarray, count: int) -> np.ndarray:
        """Rows (n,) among which the `count` nearest probably are, n about 4 times as many."""
        rows = self.cells.search(vector[None], min(SPARE * count, self.rows))[1][0]
        return rows[rows >= 0]


def is_due(store: Store) -> bool:
    """Whether the index is large, and has no inverted file or one that lacks too much."""
    if (height := store.height()) < FROM:
        return False
    found = Approximate.open(store.folder)
    return found is None or height > (1 + GROWTH) * found.rows


def build(store: Store) -> Approximate:
    """Sort the vectors into cells, look into as many as RECALL needs, and write all that beside the index.

    Raises SearchError where FAISS is not installed.
    """
    try:
        import faiss
    except ImportError:
        install = "pip install minclip[faiss]"
        raise SearchError(f"searching {store.height():,} vectors approximately needs FAISS: {install}") from None
    vectors = store.vectors()
    rows, width = vectors.shape
    random = np.random.default_rng(0)
    centres = 2 ** round(math.log2(4 * math.sqrt(rows)))
    cells = faiss.index_factory(width, f"IVF{centres},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.sort(random.choice(rows, min(rows, 64 * centres), replace=False))
    cells.train(vectors[sample])
    for start in range(0, rows, 65536):
        cells.add(vectors[start : start + 65536])
    queries = vectors[np.sort(random.choice(rows, min(rows, QUERIES), replace=False))]
    found = Approximate(cells, rows, 0.0)
    probe(found, vectors, queries)
    with one_writer(store.folder), writable(store.folder), replacing_together() as begin:
        faiss.write_index(cells, faiss.PyCallbackIOWriter(begin(store.folder / FILE).write))
        begin(store.folder / FACTS).write(json.dumps({"rows": rows, "recall": found.recall}).encode())
    return found


def probe(found: Approximate, vectors: np.ndarray, queries: np.ndarray) -> None:
    """Have it look into the fewest cells, a power of two, that reach RECALL on the queries; set what they reach."""
    exact = [set(best(vectors @ query, AT)) for query in queries]
    for power in range(found.cells.nlist.bit_length()):  # the last one is all of them
        found.cells.nprobe = 2**power
        candidates = [found.candidates(query, AT) for query in queries]
        near = [rows[best(vectors[rows] @ query, AT)] for rows, query in zip(candidates, queries, strict=True)]
        shares = [len(a.intersection(b.tolist())) / len(a) for a, b in zip(exact, near, strict=True)]
        found.recall = float(np.mean(shares))
        if found.recall >= RECALL:
            break


def best(scores: np.ndarray, count: int) -> list[int]:
    """Where the `count` largest of scores (n,) are, largest first, of equal ones the first."""
    rows = np.arange(len(scores)) if count >= len(scores) else np.argpartition(-scores, count)[:count]
    return [int(row) for row in sorted(rows, key=lambda row: (-scores[row], row))]
