"""What English nouns mean, from WordNet: whether a word names a thing that can be drawn, and which mean the same."""

from __future__ import annotations

from dataclasses import dataclass

from minclip_torch.training.miniatures.vocabulary import ABSTRACT

# WordNet's files of nouns (wninput(5WN)) whose members can be drawn: what lives, is made, is eaten, is seen outdoors.
ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PHENOMENON, PLANT = "05", "06", "08", "13", "17", "18", "19", "20"
FREQUENT = 3  # senses of a word, the most frequent first, that are looked at
DRAWABLE = frozenset({ANIMAL, ARTIFACT, BODY, FOOD, OBJECT, PERSON, PHENOMENON, PLANT})
# Of a word in a title or among keywords: what it may be (weather and death are said of a drawing, not drawn), and how
# many senses are looked at, for a rare one is hardly what somebody meant.
TITLED, COMMON = DRAWABLE - {PHENOMENON}, 2


@dataclass(frozen=True)
class Meaning:
    """One synset. file: two digits, as in `DRAWABLE`; words: its members, underscored; above: its hypernyms."""

    file: str
    words: tuple[str, ...]
    above: tuple[str, ...]


class Nouns:
    """WordNet's nouns. index, data: the texts of its files index.noun and data.noun."""

    def __init__(self, index: str, data: str) -> None:
        self._first = {}
        for line in index.splitlines():
            if line[:1] != " ":
                lemma, _, senses, *rest = line.split()
                self._first[lemma] = rest[-int(senses) :]
        self._lines = {line[:8]: line for line in data.splitlines() if line[:1] != " "}

    def sense(self, words: str, frequent: int = FREQUENT) -> str | None:
        """The synset that a picture's name stands for, plurals taken back; None where no frequent sense can be drawn.

        Of the `frequent` first senses it is the first that can be drawn, but the fruit rather than the tree.
        """
        files = {synset: self._lines[synset][9:11] for synset in self._senses(words)[:frequent]}
        drawn = [synset for synset, file in files.items() if file in DRAWABLE]
        fruit = [synset for synset, file in files.items() if file == FOOD]
        if not drawn:
            return None
        return fruit[0] if fruit and files[drawn[0]] == PLANT else drawn[0]

    def singular(self, words: str) -> str | None:
        """A word of a title as WordNet lists it ("dogs": "dog"); None where it lists none but names ("Paris")."""
        form, _ = self._common(words)
        return form.replace("_", " ") or None

    def things(self, words: str) -> tuple[bool, ...]:
        """Whether the first senses of a word of a title, names left out, can be drawn; the most frequent first."""
        _, senses = self._common(words)
        return tuple(self._lines[synset][9:11] in TITLED for synset in senses[:COMMON])

    def _common(self, words: str) -> tuple[str, list[str]]:
        """The form of a word that WordNet lists, and the synsets that have it in lower case; or "" and none."""
        for form in singular(_lemma(words)):
            senses = [synset for synset in self._first.get(form, ()) if form in self.meaning(synset).words]
            if senses and len(form) > 1:
                return form, senses
        return "", []

    def _senses(self, words: str) -> list[str]:
        """The synsets of a name, the most frequent first, but what is named after someone or somewhere."""
        for form in singular(_lemma(words)):
            if form in self._first:
                return [synset for synset in self._first[form] if " @i " not in self._lines[synset].split("|")[0]]
        return []

    def meaning(self, synset: str) -> Meaning:
        """A synset's members and what lies above it."""
        fields = self._lines[synset].split("|")[0].split()
        count = int(fields[3], 16)
        words = tuple(fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        above = tuple(pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i] == "@")
        return Meaning(fields[1], words, above)

    def kind(self, words: str) -> str | None:
        """A word for what the thing is one of ("bird"), where the name has one sense and the word says something."""
        senses = self._senses(words)
        if len(senses) != 1:
            return None
        above = self.meaning(senses[0]).above
        word = self.meaning(above[0]).words[0] if above else ""
        return word.replace("_", " ") if word.islower() and word not in ABSTRACT else None


def _lemma(words: str) -> str:
    """Words as WordNet's index has them."""
    return words.lower().replace(" ", "_").replace("’", "'")


def singular(word: str) -> list[str]:
    """A word, and what it may be the plural of."""
    forms = [word]
    for plural, one in (("ies", "y"), ("ves", "f"), ("men", "man"), ("es", ""), ("s", "")):
        if word.endswith(plural) and len(word) > len(plural) + 2 and not word.endswith("ss"):
            forms.append(word.removesuffix(plural) + one)
    return forms
