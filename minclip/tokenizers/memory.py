"""A bounded memory of words: most words of a text have been met before."""

from __future__ import annotations

from typing import TypeVar

Found = TypeVar("Found")

WORDS = 65_536  # ordinary English needs a fraction of it
LETTERS = 64


class Memory(dict[str, Found]):
    """What was found for words: at most `WORDS` of them, of at most `LETTERS` characters.

    Bounded in both, so that a hostile text cannot fill it. Use: `memory.get(word) or memory.keep(word, find(word))`.
    """

    def keep(self, word: str, found: Found) -> Found:
        """Remember what was found for a word, and return it."""
        if len(word) <= LETTERS:
            if len(self) >= WORDS:
                self.clear()
            self[word] = found
        return found
