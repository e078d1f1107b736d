"""From a text to the words that BPE spells: cleaned, then split.

Two cleanings exist in the world, and checkpoints do not say which one they mean:

- "ftfy", the code that trained CLIP (OpenAI's `simple_tokenizer.py`): repair the encoding, resolve HTML entities
  twice, collapse white space, lower-case the whole string.
- "nfc", the normalizer in a `tokenizer.json`: canonical composition, collapse white space, lower-case letter by letter.

They agree on plain English. They differ on mojibake, entities, full-width letters, curly quotes, and on a final sigma.

What "nfc" cannot share with its peer is the age of the Unicode tables: characters assigned since the peer's regular
expressions were made (Unicode 16), and combining marks since Unicode 9, which its composition leaves where they stand.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Literal

import regex

Cleaning = Literal["ftfy", "nfc"]

# The words that CLIP's split pattern knows by name.
FRAMES = ("<|startoftext|>", "<|endoftext|>")

STRETCH = 4096  # characters; about how much of a long text is cleaned at once

_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Ignoring case matters even in lower case: to such a pattern the long s (U+017F) of "'ſ" is an s, and U+0345 a letter.
_SPLIT = {"ftfy": regex.compile(_PATTERN, regex.IGNORECASE), "nfc": regex.compile(_PATTERN)}
_SPACES = regex.compile(r"\s+")
_MANY_MARKS = regex.compile(r"\p{M}{32,}")
_NESTED_AMPERSANDS = regex.compile(r"&((?:(?:amp|AMP|#0{0,20}38|#[xX]0{0,20}26);){2,})")
_DEEP, _APART, _LEVELS = 6, 3, 8  # nestings up to so deep are left alone; passes between deeper ones, and how many
_LONG_NUMBER = regex.compile(r"&#0*([0-9]{1,8})[0-9]*")


def is_plain(text: str) -> bool:
    """Whether both cleanings leave the text as it is, but for spaces and case: printable ASCII without an entity."""
    return text.isascii() and text.isprintable() and "&" not in text


def clean(text: str, cleaning: Cleaning) -> str:
    """The text as the vocabulary knows it: repaired, single-spaced, in lower case."""
    if cleaning == "nfc":
        composed = unicodedata.normalize("NFC", _order_marks(text))
        # Rust lowers letter by letter, so that no sigma is ever final; Python looks around a capital sigma.
        return _SPACES.sub(" ", composed).replace("\N{GREEK CAPITAL LETTER SIGMA}", "σ").lower()
    if not is_plain(text):
        text = _unescape(_unescape("".join(_repair(text))))
    return _SPACES.sub(" ", text).strip().lower()


def clean_stretches(text: str, cleaning: Cleaning) -> Iterator[str]:
    """The text cleaned piece by piece, so that the start of a long text can be had without cleaning all of it.

    The words of the pieces are the words of the whole: nothing reaches across a space in "nfc", nor across a line end
    in "ftfy", which repairs line by line.
    """
    if len(text) <= STRETCH:
        yield clean(text, cleaning)
    elif cleaning == "ftfy":
        for line in _repair(text):
            yield _SPACES.sub(" ", _unescape(_unescape(line))).strip().lower()
    else:
        start = 0
        while start < len(text):
            end = text.find(" ", start + STRETCH)
            end = len(text) if end < 0 else end
            yield clean(text[start:end], cleaning)
            start = end


def split_words(text: str, cleaning: Cleaning) -> Iterator[tuple[str, int]]:
    """The words of a cleaned text and where each begins: a contraction, a run of letters, a digit, a run of others."""
    for match in _SPLIT[cleaning].finditer(text):
        word, start = match.group(), match.start()
        if cleaning == "nfc" and word in FRAMES:
            # A tokenizer.json splits a second time, by GPT-2's pattern, which cuts just these two words open.
            yield from (("<|", start), (word[2:-2], start + 2), ("|>", start + len(word) - 2))
        else:
            yield word, start


def _repair(text: str) -> Iterator[str]:
    """The lines of the text as `ftfy.fix_text` leaves them."""
    entities: Literal["auto", False] = "auto"  # as ftfy has it: once a "<" was seen, entities stay as they are
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        line, start = text[start:end], end
        if is_plain(line.rstrip("\n")):
            yield line
        else:
            import ftfy  # here, not above: 40 ms that plain text need not wait for

            if entities and "<" not in line:
                line = _shorten_entities(line)
            yield ftfy.fix_text(_order_marks(line), unescape_html=entities)
        if "<" in line:
            entities = False


def _unescape(text: str) -> str:
    """`html.unescape`, but for its refusal of numbers of thousands of digits: no character has more than seven."""
    return html.unescape(_LONG_NUMBER.sub(r"&#\1", text)) if "&" in text else text


def _shorten_entities(line: str) -> str:
    """`&amp;amp;amp;...` with fewer `amp;`, to be resolved to the same text.

    ftfy resolves one level of nesting a pass over the line, until a pass changes nothing: n levels cost n passes. Deep
    ones are made less deep, but stay in the order in which they are resolved, and a few passes apart.
    """
    depths = sorted({match[1].count(";") for match in _NESTED_AMPERSANDS.finditer(line)})
    shorter: dict[int, int] = {}
    before = depth = _DEEP
    for deep in (deep for deep in depths if deep > _DEEP):
        if len(shorter) < _LEVELS:
            depth += min(deep - before, _APART)
        shorter[deep], before = depth, deep

    def shorten(match: regex.Match[str]) -> str:
        levels = match[1].split(";")[:-1]
        return "&" + "".join(f"{level};" for level in levels[-shorter.get(len(levels), len(levels)) :])

    return _NESTED_AMPERSANDS.sub(shorten, line) if shorter else line


def _order_marks(text: str) -> str:
    """The text with long runs of combining marks decomposed and in canonical order, which composes to the same.

    Python sorts them by insertion, which takes n squared steps where they are out of order.
    """

    def ordered(run: regex.Match[str]) -> str:
        marks = "".join(unicodedata.normalize("NFD", mark) for mark in run.group())
        classes = [unicodedata.combining(mark) for mark in marks]
        groups = groupby(zip(marks, classes, strict=True), key=lambda pair: pair[1] > 0)
        return "".join(mark for _, group in groups for mark, _ in sorted(group, key=lambda pair: pair[1]))

    return _MANY_MARKS.sub(ordered, text)
