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
from typing import Literal

import regex

from minclip.tokenizers.added_tokens import AddedToken, AddedTokenFinder

Cleaning = Literal["ftfy", "nfc"]

# The words that CLIP's split pattern knows by name.
FRAMES = ("<|startoftext|>", "<|endoftext|>")

_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# Ignoring case matters even in lower case: to such a pattern the long s (U+017F) of "'ſ" is an s, and U+0345 a letter.
_SPLIT = {"ftfy": regex.compile(_PATTERN, regex.IGNORECASE), "nfc": regex.compile(_PATTERN)}
_SPACES = regex.compile(r"\s+")


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


class AddedTokenCutter:
    """Cuts added tokens out of a text."""

    def __init__(
        self, tokens: Iterable[AddedToken], vocab: Mapping[str, int], cleaning: Cleaning | None = None
    ) -> None:
        """vocab: the id of each token. cleaning: how the texts to come were cleaned; the tokens then are likewise."""
        self._finder = AddedTokenFinder(
            (token.content if cleaning is None else clean(token.content, cleaning), vocab[token.content], token)
            for token in tokens
        )

    def __call__(self, text: str) -> list[str | int]:
        """The text in order: what lies between the added tokens as it stands, the tokens as their ids."""
        return [text[start:end] if index is None else index for index, start, end in self._finder.split(text)]
