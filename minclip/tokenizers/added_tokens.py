"""A tokenizer's added tokens (`<mask>`, `<s>`), and finding them in a text before anything else is done to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import regex

from minclip.errors import TokenizerError

# Unicode's White_Space; Python's own idea of it has U+001C to U+001F besides.
WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LARGEST_ID = 2**31 - 1  # what every runtime's token ids can hold

_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")
_SPACES = regex.compile(f"[{WHITE_SPACE}]+")
_SPACES_BEFORE = regex.compile(f"(?r)[{WHITE_SPACE}]+")


def token_id(value: Any, token: Any, source: Any) -> int:
    """The id that a file gives a token, written as a number or as its digits. TokenizerError where it is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 10:
        value = int(value)
    if type(value) is not int or not 0 <= value <= LARGEST_ID:
        raise TokenizerError(
            f"{source} gives token {token!r:.80} the id {value!r:.40}; expected a whole number from 0 to {LARGEST_ID}"
        )
    return value


@dataclass(frozen=True)
class AddedToken:
    """A token found in the text as it stands, before any BPE; the fields are the ones of the files.

    id: None for a token that the vocabulary has, or that gets the next free id.
    lstrip, rstrip: swallow the white space on that side. single_word: only where no word character touches it.
    normalized: searched in the cleaned text, itself cleaned; otherwise in the raw text.
    special: does not stand for text; `decode(..., skip_special_tokens=True)` drops it.
    """

    content: str
    id: int | None = None
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False
    normalized: bool = False
    special: bool = True

    @classmethod
    def from_json(cls, entry: Any, *, id: int | None = None, special: bool | None = None) -> AddedToken:
        """Read a token as the files spell it: a string, or an object with some of the fields.

        special: what the place of the entry says about it, where it is not for the entry to say.
        """
        if isinstance(entry, str):
            entry = {"content": entry}
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str) or not entry["content"]:
            raise TokenizerError(f"an added token must be a string or an object with content, not {entry!r:.80}")
        special = bool(entry.get("special", False)) if special is None else special
        lstrip, rstrip, single_word = (bool(entry.get(name, False)) for name in ("lstrip", "rstrip", "single_word"))
        return cls(
            entry["content"], id, lstrip, rstrip, single_word, bool(entry.get("normalized", not special)), special
        )

    def to_json(self) -> dict[str, Any]:
        """The object that the files hold; the id is the key it is filed under."""
        return {name: value for name, value in asdict(self).items() if name != "id"}


class AddedTokenFinder:
    """Splits a text at added tokens: leftmost first, at one place the longest."""

    def __init__(self, tokens: Iterable[tuple[str, int, AddedToken]]) -> None:
        """tokens: what to look for, the id, and the token whose rules (lstrip, rstrip, single_word) apply."""
        self._tokens: dict[str, tuple[int, AddedToken]] = {}
        for content, i, token in tokens:
            if content:
                self._tokens.setdefault(content, (i, token))
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = regex.compile("|".join(map(regex.escape, longest_first))) if self._tokens else None

    def split(self, text: str) -> Iterator[tuple[int | None, int, int]]:
        """(id, start, end) in order, together all of `text`; id is None for the text between added tokens."""
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
                yield None, done, start
            yield index, start, end
            done = end
        if done < len(text):
            yield None, done, len(text)
