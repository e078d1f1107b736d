"""Cutting normalized text into pieces: the best-scoring cut (unigram) and the pair merges (BPE).

Both work on a vocabulary held in a plain dict: all pieces that start at a place are found by asking for every length
that the vocabulary has. That is bounded by the longest piece, so a text takes time linear in its length, however
long a word is, and needs no trie, which Python would take many seconds to build for 900,000 pieces.
"""

from __future__ import annotations

import heapq
import sys
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

Span = tuple[int, int, int]  # id, start, end
Units = TypeVar("Units", str, list[str])

REBASE = 100_000  # how far a float32 sum of scores may fall
_SHORT = 16  # characters; the trainer's default limit. Longer pieces are looked for only where their first 16 are


class Lexicon:
    """The pieces that may be cut out of a text, and their ids."""

    def __init__(self, ids: dict[str, int]) -> None:
        self.ids = ids
        lengths = set(map(len, ids))
        self.lengths = tuple(sorted(length for length in lengths if length <= _SHORT))
        longer: defaultdict[str, set[int]] = defaultdict(set)
        if lengths and max(lengths) > _SHORT:
            for piece in [piece for piece in ids if len(piece) > _SHORT]:
                longer[piece[:_SHORT]].add(len(piece))
        self.longer = {prefix: tuple(sorted(found)) for prefix, found in longer.items()}

    def prefixes(self, text: str, start: int) -> list[tuple[int, int]]:
        """The pieces that `text` has at `start`, shortest first, as (end, id)."""
        get, size = self.ids.get, len(text)
        found: list[tuple[int, int]] = []
        for length in self.lengths:
            end = start + length
            if end > size:
                return found
            if (piece := get(text[start:end])) is not None:
                found.append((end, piece))
        if self.longer:
            for length in self.longer.get(text[start : start + _SHORT], ()):
                end = start + length
                if end <= size and (piece := get(text[start:end])) is not None:
                    found.append((end, piece))
        return found

    def longest(self, text: str, start: int) -> int:
        """Where the longest piece that `text` has at `start` ends, 0 where there is none."""
        found = self.prefixes(text, start) if self.ids else ()
        return found[-1][0] if found else 0


def viterbi(
    text: str, lexicon: Lexicon, scores: Sequence[float], unknown: int, unknown_score: float, precision: str
) -> list[Span]:
    """The cut of `text` with the largest sum of scores (Kudo 2018, section 3.2).

    A character that is no piece may be cut out as `unknown`. precision: array typecode of the sums, "f" (float32) as in
    sentencepiece or "d" as in tokenizers. Of equal sums the one found first, from the left, shortest piece first,
    stays: this and the rounding decide between cuts that are equal on paper, "a" + "aa" and "aa" + "a". In float32,
    sums that fall below -REBASE are counted from there on, as sentencepiece 0.2.3 does.
    """
    size = len(text)
    best: array[float] = array(precision, bytes((size + 1) * (4 if precision == "f" else 8)))
    total: array[float] = array(precision, [0.0])  # rounds to the precision
    came_from = [-1] * (size + 1)
    piece_to = [unknown] * (size + 1)
    prefixes = lexicon.prefixes
    rebased = -REBASE if precision == "f" else float("-inf")
    reached = 0
    for start in range(size):
        if best[start] < rebased:
            base = best[start]
            for place in range(start, reached + 1):
                if came_from[place] >= 0:
                    best[place] -= base
        here = best[start]
        found = prefixes(text, start)
        reached = max(reached, found[-1][0] if found else start + 1)
        for end, piece in found:
            total[0] = here + scores[piece]
            if came_from[end] < 0 or total[0] > best[end]:
                best[end], came_from[end], piece_to[end] = total[0], start, piece
        end = start + 1
        if not found or found[0][0] != end:
            total[0] = here + unknown_score
            if came_from[end] < 0 or total[0] > best[end]:
                best[end], came_from[end], piece_to[end] = total[0], start, unknown
    spans: list[Span] = []
    end = size
    while end > 0:
        spans.append((piece_to[end], came_from[end], end))
        end = came_from[end]
    spans.reverse()
    return spans


def joined(spans: Iterable[Span], unknown: int | None) -> list[Span]:
    """The spans with each run of unknown characters made one."""
    result: list[Span] = []
    for index, start, end in spans:
        if index == unknown and result and result[-1][0] == index:
            result[-1] = index, result[-1][1], end
        else:
            result.append((index, start, end))
    return result


def byte_ids(ids: Mapping[str, int]) -> dict[int, int]:
    """The ids of the tokens that stand for bytes (`<0x0A>`), as many as there are."""
    return {byte: ids[token] for byte in range(256) if (token := byte_token(byte)) in ids}


def byte_token(byte: int) -> str:
    """The token that stands for a byte of a character that no other token has."""
    return f"<0x{byte:02X}>"


def runner_up_gap(
    text: str, lexicon: Lexicon, scores: Sequence[float], unknown_score: float, spans: Sequence[Span]
) -> float:
    """By how much the cut `spans` beats every other cut of `text`, negative where it does not.

    Another cut leaves the path of `spans` somewhere and comes back to it at some place, last by an edge that is not
    in `spans`; so it is enough to compare the edges that arrive at the places of the path, sums taken in float64.
    """
    size = len(text)
    best = [float("-inf")] * (size + 1)
    best[0] = 0.0
    path = {end: start for _, start, end in spans}
    on_path, other = {0: 0.0}, dict.fromkeys(path, float("-inf"))
    for start in range(size):
        here = best[start]
        found = lexicon.prefixes(text, start)
        edges = [(end, scores[piece]) for end, piece in found]
        if not found or found[0][0] != start + 1:
            edges.append((start + 1, unknown_score))
        for end, score in edges:
            best[end] = max(best[end], here + score)
            if end not in path:
                continue
            if path[end] == start:
                on_path[end] = on_path[start] + score
            else:
                other[end] = max(other[end], here + score)
    return min((on_path[end] - other[end] for end in path), default=float("inf"))


def first_tokens(
    beginning: Callable[[int], tuple[Units, bool]], cut: Callable[[Units], list[Any]], count: int, longest: int
) -> list[Any]:
    """The first `count` tokens of a long text (and perhaps more) without cutting all of it.

    beginning: about the first so many units of the text, and whether that is all. cut: the tokens of a text; no token
    is made of more than `longest` units. Both ways to cut work such that, where a token ends, the tokens before are
    those of the text up to there. In the cut of the whole text a token ends at one of any `longest` places in a row:
    so what the texts up to each of those places have in common is what the whole text has, however it goes on. The
    last token in common is left out, since a run of unknown characters, made one token later, may go on after it.
    """
    for factor in (1, 8):
        text, whole = beginning(factor * (8 * count + 2 * longest))
        if whole:
            return cut(text)
        ends = range(max(0, len(text) - longest + 1), len(text) + 1)
        cuts = [cut(text[:end]) for end in ends]
        alike = next((i for i, tokens in enumerate(zip(*cuts, strict=False)) if len(set(tokens)) > 1), len(cuts[0]))
        if alike > count:
            return cuts[0][: alike - 1]
    return cut(beginning(sys.maxsize)[0])  # little in common: a run of millions of unknown characters, say


def merge_pairs(symbols: Sequence[str], rank: Callable[[tuple[str, str]], float | None]) -> list[tuple[str, int, int]]:
    """Merge neighbours, the pair of lowest rank first, of equals the leftmost, until none is left to merge.

    rank: of a pair of symbols, or None where they do not merge. Returns what is left as (symbol, first, last): it is
    made of `symbols[first:last]`. A merge adds at most two entries to the heap, so n symbols take n log n steps.
    """
    parts: list[str | None] = list(symbols)
    size = len(parts)
    after, before = list(range(1, size + 1)), list(range(-1, size - 1))
    heap: list[tuple[float, int, int, str, str]] = []  # rank, places, symbols

    def propose(left: int, right: int) -> None:
        if left >= 0 and right < size:
            a, b = parts[left], parts[right]
            if a is not None and b is not None and (found := rank((a, b))) is not None:
                heapq.heappush(heap, (found, left, right, a, b))

    for place in range(1, size):
        propose(place - 1, place)
    while heap:
        _, left, right, a, b = heapq.heappop(heap)
        if parts[left] != a or parts[right] != b:
            continue  # one of the two has merged with another meanwhile
        parts[left], parts[right] = a + b, None
        after[left] = after[right]
        if after[left] < size:
            before[after[left]] = left
        propose(before[left], left)
        propose(left, after[left])
    return [(part, place, after[place]) for place, part in enumerate(parts) if part is not None]
