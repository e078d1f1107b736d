"""Which characters of a text each character of its cleaned form comes from."""

from __future__ import annotations

from collections.abc import Callable

import regex

Places = list[tuple[int, int]]  # of each cleaned character: start and end in the text

_RUNS = regex.compile(r"\s+|\S+")
# A grapheme cluster, \X; flags spelt out, because \X looks back to the first of a row of them each time.
CLUSTER = regex.compile(r"[\U0001F1E6-\U0001F1FF]{1,2}[\p{GCB=EX}\p{GCB=SM}\p{GCB=ZWJ}]*|\X")


def clean_with_places(text: str, clean: Callable[[str], str]) -> tuple[str, Places]:
    """The cleaned text and the origin of each of its characters.

    Cleaning may rewrite anything, so the origins are found by looking: where the text cleaned run by run, or cluster
    by cluster, gives what it gives as a whole, each part comes from its part; otherwise all that differs between the
    text and its cleaned form comes from all that was there before.
    """
    cleaned = clean(text)
    if len(cleaned) == len(text) and cleaned == text.lower():
        return cleaned, [(i, i + 1) for i in range(len(text))]
    places: Places = []
    parts: list[str] = []
    for run in _RUNS.finditer(text):
        start, end = run.span()
        if not run.group().isspace():
            part, found = _within(text, start, end, clean)
        elif parts and parts[-1] == " ":  # what stood between two spaces was cleaned away
            places[-1] = (places[-1][0], end)
            continue
        else:
            part, found = " ", [(start, end)]
        if part:
            parts.append(part)
            places += found
    joined = "".join(parts)
    if joined != cleaned:  # as it is where white space at the ends was taken away
        left = len(joined) - len(joined.lstrip(" "))
        places = places[left : left + len(cleaned)]
        if joined.strip(" ") != cleaned:
            places = _by_difference(text, cleaned, 0)
    return cleaned, places


def _within(text: str, start: int, end: int, clean: Callable[[str], str]) -> tuple[str, Places]:
    """One run of characters that are no white space."""
    run = text[start:end]
    cleaned = clean(run)
    places: Places = []
    parts: list[str] = []
    if not run.isascii():
        for cluster in CLUSTER.finditer(run):
            a, b = start + cluster.start(), start + cluster.end()
            part = clean(cluster.group())
            parts.append(part)
            places += [(a + i, a + i + 1) for i in range(b - a)] if len(part) == b - a else [(a, b)] * len(part)
        if "".join(parts) == cleaned:
            return cleaned, places
    return cleaned, _by_difference(run, cleaned, start)


def _by_difference(text: str, cleaned: str, start: int) -> Places:
    """Equal beginnings and ends (but for case) character by character; what lies between comes from all between."""
    size = min(len(text), len(cleaned))
    left = next((i for i in range(size) if text[i].lower() != cleaned[i]), size)
    size -= left
    right = next((i for i in range(size) if text[-1 - i].lower() != cleaned[-1 - i]), size)
    between = (start + left, start + len(text) - right)
    if between[0] == between[1]:  # nothing was there: the neighbour speaks for it
        between = (max(start, between[0] - 1), between[1])
    return [
        *((start + i, start + i + 1) for i in range(left)),
        *[between] * (len(cleaned) - left - right),
        *((start + i, start + i + 1) for i in range(len(text) - right, len(text))),
    ]
