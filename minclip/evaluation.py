"""How well similarities order the candidates: ranks, and the figures that papers report of them.

Zero-shot accuracy among the best k (top-k) is the recall at k of the one right class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


def retrieval(cosines: np.ndarray, right: np.ndarray) -> dict[str, dict[str, float]]:
    """Each picture against all texts, and each text against all pictures; several may be right.

    cosines (pictures, texts); right: the same shape, True for what belongs together. Recall at 1, 5 and 10 and mean
    reciprocal rank, of "image_to_text" and of "text_to_image".
    """
    found = {}
    for name, rank in (("image_to_text", ranks(cosines, right)), ("text_to_image", ranks(cosines.T, right.T))):
        found[name] = {f"recall{k}": recall(rank, k) for k in (1, 5, 10)}
        found[name]["mean_reciprocal_rank"] = mean_reciprocal_rank(rank)
    return found


def classification(cosines: np.ndarray, own: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Zero-shot accuracy (Radford et al. 2021, section 3.1), of all pictures and of those of each class.

    cosines (pictures, labels); own: int (pictures,), the right label's number. Fractions are of 1, None for a class
    without pictures; confusion counts[i][j]: how many pictures of label i were taken for label j.
    """
    rank = ranks(cosines, own[:, None] == np.arange(len(labels)))
    counts = np.zeros((len(labels), len(labels)), int)
    np.add.at(counts, (own, cosines.argmax(axis=1)), 1)
    wrong = counts * (1 - np.eye(len(labels), dtype=int))
    classes = [
        {
            "label": label,
            "pictures": int((own == i).sum()),
            "top1": recall(rank[own == i], 1) if i in own else None,
            "top5": recall(rank[own == i], 5) if i in own else None,
            "taken_for": labels[int(wrong[i].argmax())] if wrong[i].any() else None,
        }
        for i, label in enumerate(labels)
    ]
    return {
        "pictures": len(own),
        "labels": len(labels),
        "top1": recall(rank, 1),
        "top5": recall(rank, 5),
        "mean_top1_of_classes": float(np.mean([each["top1"] for each in classes if each["top1"] is not None])),
        "mean_reciprocal_rank": mean_reciprocal_rank(rank),
        "classes": classes,
        "confusion": {"labels": list(labels), "counts": counts.tolist()},
    }
