"""How well similarities order the candidates: ranks, and the figures that papers report of them.

Zero-shot accuracy among the best k (top-k) is the recall at k of the one right class.
"""

from __future__ import annotations

import numpy as np


def ranks(similarity: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rank, from 1, of the best right candidate in each row; ties count against it, and so does NaN.

    similarity (queries, candidates); right: the same shape, True where a candidate answers the query. A query that no
    candidate answers gets the rank after the last. Returns int (queries,).
    """
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    return 1 + (~(similarity < best) & ~right).sum(axis=1)


def recall(ranks: np.ndarray, k: int) -> float:
    """Recall at k: the share of queries, 0 to 1, with a right candidate among the best k. ranks (queries,), from 1."""
    return float((ranks <= k).mean())


def mean_reciprocal_rank(ranks: np.ndarray) -> float:
    """The mean of 1 / rank (Voorhees 1999), 0 to 1. ranks (queries,), from 1."""
    return float((1 / ranks).mean())
