"""Ranks and what is computed of them, against counting by hand and against scikit-learn's definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minclip.evaluation import mean_reciprocal_rank, ranks, recall

COARSE = st.integers(-2, 2).map(lambda n: n / 2)  # so that ties are common


@given(
    st.integers(1, 6).flatmap(
        lambda m: st.tuples(arrays(np.float64, (4, m), elements=COARSE), arrays(np.bool_, (4, m))),
    )
)
def test_a_rank_is_one_and_the_wrong_ones_at_least_as_near(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    similarity, right = drawn
    right[:, 0] = True  # something is
    for found, values, answers in zip(ranks(similarity, right), similarity, right, strict=True):
        best = max(v for v, answer in zip(values, answers, strict=True) if answer)
        assert found == 1 + sum(v >= best for v, answer in zip(values, answers, strict=True) if not answer)


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_without_ties_a_rank_is_the_place_in_the_sorted_row(queries: int, candidates: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.permutation(queries * candidates).reshape(queries, candidates).astype(np.float32)
    wanted = rng.integers(candidates, size=queries)
    order = np.argsort(-similarity, axis=1)
    places = [1 + int(np.flatnonzero(row == answer)[0]) for row, answer in zip(order, wanted, strict=True)]
    assert ranks(similarity, wanted[:, None] == np.arange(candidates)).tolist() == places


def test_a_similarity_of_nan_is_never_right_and_a_wrong_one_counts_against_the_right() -> None:
    similarity = np.array([[np.nan, 0.1, 0.2], [0.5, np.nan, 0.2]])
    assert ranks(similarity, np.eye(3, dtype=bool)[:2]).tolist() == [3, 3]
    assert ranks(similarity[1:], np.array([[True, False, False]])).tolist() == [2]


def test_a_query_without_a_right_candidate_ranks_after_the_last() -> None:
    assert ranks(np.array([[0.3, 0.2]]), np.array([[False, False]])).tolist() == [3]
    assert ranks(np.empty((2, 0)), np.empty((2, 0), dtype=bool)).tolist() == [1, 1]


@given(arrays(np.int64, st.integers(1, 20), elements=st.integers(1, 12)), st.integers(1, 12))
def test_recall_and_reciprocal_rank_are_means_over_the_queries(found: np.ndarray, k: int) -> None:
    assert recall(found, k) == pytest.approx(sum(rank <= k for rank in found.tolist()) / len(found))
    assert mean_reciprocal_rank(found) == pytest.approx(sum(1 / rank for rank in found.tolist()) / len(found))
    assert recall(found, int(found.max())) == 1
    assert mean_reciprocal_rank(found) <= (1 + recall(found, 1)) / 2
