"""Searching a part of the vectors only: an inverted file of FAISS (Johnson, Douze and Jegou 2017), for large indexes.

The vectors are sorted into cells around centres found by k-means, in 8 bits a number; a query looks into the `probes`
cells whose centres are nearest. What it finds there is compared with the query anew, from the index's own vectors, so
the scores are exact and only the choice is approximate: `recall` says how much of the exact answer it holds.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minclip.errors import SearchError
from minclip.files import read_json, replacing_together
from minclip.search.store import Store, one_writer, writable

FROM = 1_000_000  # vectors; below, the exact answer takes a moment
FILE, FACTS = "approximate.faiss", "approximate.json"
RECALL, AT, QUERIES = 0.95, 10, 64  # what is aimed at, at how many results, measured on how many pictures of the index
SPARE = 4  # times as many are taken from the cells as are wanted, to be compared anew
GROWTH = 0.1  # of the vectors, that may be new before the cells are made anew; until then those are searched exactly
INSTALL = "pip install minclip[faiss]"


@dataclass
class Facts:
    """rows: how many vectors it holds, the first ones. recall: the share of the exact 10 best that was found.

    speedup: how many times as fast as the exact answer that was.
    """

    rows: int
    probes: int
    recall: float
    speedup: float


class Approximate:
    """The inverted file beside an index."""

    def __init__(self, folder: Path, cells: Any, facts: Facts) -> None:
        self.folder, self.cells, self.facts = folder, cells, facts

    @classmethod
    def open(cls, folder: Path) -> Approximate | None:
        """That of an index; None where it has none, or FAISS is not installed."""
        if not (folder / FACTS).is_file():
            return None
        try:
            import faiss
        except ImportError:
            return None
        facts = Facts(**read_json(folder / FACTS, SearchError))
        try:
            cells = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError:
            raise SearchError(f"{folder / FILE} cannot be read; delete it and {FACTS} beside it") from None
        cells.nprobe = (
            facts.probes
        )  # by one thread: what two save on so few cells, they lose in waiting for one another
        return cls(folder, cells, facts)

    def candidates(self, vector: np.ndarray, count: int) -> np.ndarray:
        """Rows (n,) among which the `count` nearest probably are, n about 4 times as many."""
        rows = self.cells.search(vector[None], min(SPARE * count, self.facts.rows))[1][0]
        return rows[rows >= 0]


def free_rows(store: Store) -> Iterator[int]:
    """Rows for new vectors: none of those in the inverted file, whose cells are of the vectors that they hold now."""
    path = store.folder / FACTS
    return store.free_rows(Facts(**read_json(path, SearchError)).rows if path.is_file() else 0)


def is_due(store: Store) -> bool:
    """Whether the index is large, and has no inverted file or one that lacks too much."""
    found = Approximate.open(store.folder) if store.height() >= FROM else None
    return store.height() >= FROM and (found is None or store.height() > (1 + GROWTH) * found.facts.rows)


def build(store: Store) -> Facts:
    """Sort the vectors into cells, look into as many as RECALL needs, and write all that beside the index.

    Raises SearchError where FAISS is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise SearchError(f"searching {store.height():,} vectors approximately needs FAISS: {INSTALL}") from None
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
    facts = measure(Approximate(store.folder, cells, Facts(rows, 1, 0, 0)), vectors, queries)
    with one_writer(store.folder), writable(store.folder), replacing_together() as begin:
        faiss.write_index(cells, faiss.PyCallbackIOWriter(begin(store.folder / FILE).write))
        begin(store.folder / FACTS).write(json.dumps(asdict(facts)).encode())
    return facts


def measure(approximate: Approximate, vectors: np.ndarray, queries: np.ndarray) -> Facts:
    """The fewest probes, a power of two, that reach RECALL on the queries; and what they reach, in which time."""
    start = time.perf_counter()
    exact = [set(best(vectors @ query, AT)) for query in queries]
    exact_time = (time.perf_counter() - start) / len(exact)
    probes, found, approximate_time = 1, 0.0, 0.0
    while found < RECALL and probes <= approximate.cells.nlist:
        approximate.cells.nprobe = probes
        start = time.perf_counter()
        answers = []
        for query in queries:
            rows = approximate.candidates(query, AT)
            answers.append({int(rows[i]) for i in best(vectors[rows] @ query, AT)})
        approximate_time = (time.perf_counter() - start) / len(exact)
        found = float(np.mean([len(a & b) / len(b) for a, b in zip(answers, exact, strict=True)]))
        probes *= 2
    return Facts(len(vectors), probes // 2, found, exact_time / approximate_time)


def best(scores: np.ndarray, count: int) -> list[int]:
    """Where the `count` largest of scores (n,) are, largest first, of equal ones the first."""
    rows = np.arange(len(scores)) if count >= len(scores) else np.argpartition(-scores, count)[:count]
    return [int(row) for row in sorted(rows, key=lambda row: (-scores[row], row))]
