"""Finding a tokenizer's added tokens (`<mask>`, `<s>`) in a text as it stands, before anything else is done to it."""

from __future__ import annotations

from collections.abc import Iterable

import regex

from minclip.tokenizers.cleaning import AddedToken

__all__ = ["WHITE_SPACE", "AddedTokenFinder"]

# Unicode's White_Space; Python's own idea of it has U+001C to U+001F besides.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"

_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")
_SPACES = regex.compile(f"[{WHITE_SPACE}]+")
_SPACES_BEFORE = regex.compile(f"(?r)[{WHITE_SPACE}]+")


class AddedTokenFinder:
    """Splits a text at added tokens: leftmost first, at one place the longest."""

    def __init__(self, tokens: Iterable[tuple[str, int, AddedToken]]) -> None:
        """tokens: what to look for, the id, and the token whose rules (lstrip, rstrip, single_word) apply."""
        self._tokens = {content: (i, token) for content, i, token in tokens if content}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = regex.compile("|".join(map(regex.escape, longest_first))) if self._tokens else None

    def split(self, text: str) -> list[tuple[int | None, int, int]]:
        """(id, start, end) in order, together all of `text`; id is None for the text between added tokens."""
        parts: list[tuple[int | None, int, int]] = []
        done = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            start, end = match.span()
            index, token = self._tokens[match.group()]
            if token.single_word and (_WORD.match(text, end) or (start > 0 and _WORD.match(text, start - 1))):
                continue
            if token.lstrip and (spaces := _SPACES_BEFORE.match(text, done, start)):
                start = spaces.start()
            if token.rstrip and (spaces := _SPACES.match(text, end)):
                end = spaces.end()
            if done < start:
                parts.append((None, done, start))
            parts.append((index, start, end))
            done = end
        if done < len(text):
            parts.append((None, done, len(text)))
        return parts
