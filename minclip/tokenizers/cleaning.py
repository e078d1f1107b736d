"""From a text to the words that BPE spells: added tokens cut out, the rest cleaned and split.

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
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import regex

from minclip.errors import TokenizerError

__all__ = ["AddedToken", "AddedTokenCutter", "Cleaning", "clean", "is_plain", "split_words"]

Cleaning = Literal["ftfy", "nfc"]

# The words that CLIP's split pattern knows by name.
FRAMES = ("<|startoftext|>", "<|endoftext|>")

_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Ignoring case matters even in lower case: to such a pattern the long s (U+017F) of "'ſ" is an s, and U+0345 a letter.
_SPLIT = {"ftfy": regex.compile(_PATTERN, regex.IGNORECASE), "nfc": regex.compile(_PATTERN)}
_SPACES = regex.compile(r"\s+")
_SPACE = regex.compile(r"\s")
_WORD = regex.compile(r"\w")


def is_plain(text: str) -> bool:
    """Whether both cleanings leave the text as it is, but for spaces and case: printable ASCII without an entity."""
    return text.isascii() and text.isprintable() and "&" not in text


def clean(text: str, cleaning: Cleaning) -> str:
    """The text as the vocabulary knows it: repaired, single-spaced, in lower case."""
    if not is_plain(text):
        if cleaning == "nfc":
            # Rust lowers letter by letter, so that no sigma is ever final; Python looks around a capital sigma.
            return (
                _SPACES.sub(" ", unicodedata.normalize("NFC", text))
                .replace("\N{GREEK CAPITAL LETTER SIGMA}", "σ")
                .lower()
            )
        import ftfy  # here, not above: 40 ms that plain text need not wait for

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    text = _SPACES.sub(" ", text)
    return (text.strip() if cleaning == "ftfy" else text).lower()


def split_words(text: str, cleaning: Cleaning) -> list[str]:
    """The words of a cleaned text: a contraction, a run of letters, one digit, or a run of anything else."""
    words = _SPLIT[cleaning].findall(text)
    if cleaning == "nfc" and "<|" in text:
        # A tokenizer.json splits a second time, by GPT-2's pattern, which cuts just these two words open.
        return [part for word in words for part in (("<|", word[2:-2], "|>") if word in FRAMES else (word,))]
    return words


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


class AddedTokenCutter:
    """Cuts added tokens out of a text: leftmost first, at one place the longest."""

    def __init__(
        self, tokens: Iterable[AddedToken], vocab: Mapping[str, int], cleaning: Cleaning | None = None
    ) -> None:
        """vocab: the id of each token. cleaning: how the texts to come were cleaned; the tokens then are likewise."""
        self._tokens: dict[str, tuple[AddedToken, int]] = {}
        for token in tokens:
            if content := token.content if cleaning is None else clean(token.content, cleaning):
                self._tokens.setdefault(content, (token, vocab[token.content]))
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = regex.compile("|".join(map(regex.escape, longest_first)))

    def __call__(self, text: str) -> list[str | int]:
        """The text in order: what lies between the added tokens as it stands, the tokens as their ids."""
        if not self._tokens:
            return [text] if text else []
        pieces: list[str | int] = []
        done = 0
        for match in self._pattern.finditer(text):
            token, token_id = self._tokens[match.group()]
            start, stop = match.span()
            if token.single_word and (_WORD.match(text, stop) or (start and _WORD.match(text, start - 1))):
                continue
            while token.lstrip and start > done and _SPACE.match(text, start - 1):
                start -= 1
            while token.rstrip and _SPACE.match(text, stop):
                stop += 1
            if done < start:
                pieces.append(text[done:start])
            pieces.append(token_id)
            done = stop
        if done < len(text):
            pieces.append(text[done:])
        return pieces
