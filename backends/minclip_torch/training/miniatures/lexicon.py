"""What a word is in other languages, found in the keywords that Unicode's CLDR gives an emoji in each of them.

"tree" is a keyword of several emoji, and so, in French, is "arbre", of much the same ones and of hardly any other. Two
words are taken for the same thing where each is the other's likest by Dice's coefficient (Dice 1945), and no third one
is as like. The keywords of a single emoji say nothing of which is which.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from minclip_torch.training.miniatures.things import Annotations
from minclip_torch.training.miniatures.vocabulary import PLURALS

LIKE = 0.75  # Dice's coefficient, 2 |A & B| / (|A| + |B|) of the emoji A and B that two words are keywords of
SHARED = 2  # emoji at least


class Lexicon:
    """known: language -> CLDR's annotations in it, "en" among them."""

    def __init__(self, known: Mapping[str, Annotations]) -> None:
        self._english = _Keywords(known["en"], normal)
        self._others = {language: _Keywords(own, _composed) for language, own in known.items() if language != "en"}

    def __call__(self, name: str) -> dict[str, list[str]]:
        """Language -> the word for what goes by an English name, in those languages where one is found."""
        word = normal(name)
        likest = {language: self._english.likest(word, others) for language, others in self._others.items()}
        return {
            language: [found]
            for language, found in likest.items()
            if found is not None and self._others[language].likest(found, self._english) == word
        }


class _Keywords:
    """Which words belong to which emoji in a language, names and keywords alike. key: words as they are compared."""

    def __init__(self, annotations: Annotations, key: Callable[[str], str]) -> None:
        self._words: dict[str, set[str]] = {}
        self._emoji: dict[str, set[str]] = defaultdict(set)
        for emoji, own in annotations.items():
            self._words[emoji] = {key(word) for kind in ("tts", "default") for word in own.get(kind, [])}
            for word in self._words[emoji]:
                self._emoji[word].add(emoji)

    def likest(self, word: str, others: _Keywords) -> str | None:
        """The other language's word that belongs to the same emoji as this one's `word`. None: none, or several."""
        own = self._emoji.get(word, set())
        shared = Counter(other for emoji in own for other in others._words.get(emoji, ()))
        like = {
            other: 2 * count / (len(own) + len(others._emoji[other]))
            for other, count in shared.items()
            if count >= SHARED
        }
        most = max(like.values(), default=0.0)
        found = [other for other, value in like.items() if value == most]
        return found[0] if most >= LIKE and len(found) == 1 else None


def normal(name: str) -> str:
    """An English name as it is compared: lower case, plain letters, the last word in the singular."""
    words = re.sub(r"[^a-z0-9]+", " ", name.lower().replace("’", "").replace("'", "")).split()
    return " ".join([*words[:-1], _one(words[-1])]) if words else ""


def _one(word: str) -> str:
    if word in PLURALS or len(word) < 4 or word.endswith(("ss", "us", "is")):
        return word
    for plural, one in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss"), ("s", "")):
        if word.endswith(plural):
            return word.removesuffix(plural) + one
    return word


def _composed(word: str) -> str:
    return unicodedata.normalize("NFC", word)
