"""Drawings of the same thing put together: with the emoji of that name, or into a concept of their own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from minclip_torch.training.miniatures.icons import SETS
from minclip_torch.training.miniatures.lexicon import normal
from minclip_torch.training.miniatures.things import Concept, Drawn
from minclip_torch.training.miniatures.vocabulary import APART, INTERFACE, VAGUE
from minclip_torch.training.miniatures.wordnet import Nouns

ENGLISH_ONLY = 0.35  # how often a concept that is no emoji is drawn in a batch, one that is being 1
COMPOUND = 0.15  # the same for a thing that no dictionary has: "lightning mask"
UNMERGED = ("Symbols",)  # "cancel", "printer": signs, while a set of icons means the thing
LONGEST = 3  # words of a name


class Merger:
    """Finds the concept that a drawing belongs to.

    concepts: the emoji; slugs: other names of each, in step; translations: English name -> captions in all languages;
    lexicon: English name -> captions in the other languages that have a word for it.
    """

    def __init__(
        self,
        concepts: list[Concept],
        slugs: list[set[str]],
        nouns: Nouns,
        translations: dict[str, dict[str, list[str]]],
        lexicon: Callable[[str], dict[str, list[str]]],
    ) -> None:
        self._nouns = nouns
        self._lexicon = lexicon
        self._translations = {normal(name): captions for name, captions in translations.items()}
        self._emoji: dict[str, Concept] = {}
        self._meant: dict[str, Concept] = {}  # synset -> the emoji or the new concept that it is the name of
        self._new: dict[str, Concept] = {}
        for concept, others in zip(concepts, slugs, strict=True):
            name = concept.captions["en"][0]
            for known in (name, *others):
                self._emoji.setdefault(normal(known), concept)
            synset = nouns.sense(name)
            if synset is not None and concept.category not in UNMERGED:
                self._meant.setdefault(synset, concept)
        self._compact = {name.replace(" ", ""): concept for name, concept in self._emoji.items()}

    def add(self, drawing: Drawn) -> Concept | None:
        """Give a drawing to its concept, a new one if need be. None, and nothing is done, for what is no thing."""
        how = SETS.get(drawing.artist)
        concept = self._known(drawing, emoji=how is not None and how.emoji) or self._thing(
            drawing, compounds=how is None or how.compounds, cleaned=how is None
        )
        if concept is not None:
            concept.further.append(drawing)
            name = drawing.names[0]
            known = {normal(word) for word in concept.captions["en"]}
            if not concept.emoji and self._nouns.sense(name) and normal(name) not in known:
                concept.captions["en"].append(name)  # another artist's word for it
        return concept

    def new(self) -> list[Concept]:
        """The concepts that are no emoji, in the order they were found."""
        return list(self._new.values())

    def _known(self, drawing: Drawn, emoji: bool) -> Concept | None:
        """The emoji that goes by the drawing's name."""
        name = normal(drawing.names[0])
        found = self._emoji.get(name) or (self._compact.get(name.replace(" ", "")) if emoji else None)
        return found if found is not None and (emoji or found.category not in UNMERGED) else None

    def _thing(self, drawing: Drawn, compounds: bool, cleaned: bool) -> Concept | None:
        """The concept of what WordNet knows by the drawing's name; with `compounds`, by that name's last word."""
        words = drawing.names[0].split()
        if len(words) > LONGEST or (not cleaned and set(words) & (INTERFACE | VAGUE)):
            return None
        orders = [words] if len(words) != 2 else [words, words[::-1]]
        for name in (" ".join(order) for order in orders):
            synset = None if name in APART else self._nouns.sense(name)
            if synset is not None:
                return self._meant.get(synset) or self._make(name, drawing, synset, ENGLISH_ONLY)
        name = " ".join(words)
        if cleaned or (compounds and len(words) == 2 and self._nouns.sense(words[-1], frequent=1)):
            return self._new.get(normal(name)) or self._make(name, drawing, None, ENGLISH_ONLY if cleaned else COMPOUND)
        return None

    def _make(self, name: str, drawing: Drawn, synset: str | None, weight: float) -> Concept:
        """A new concept. Its keywords are the drawing's, and what kind of thing it is."""
        kind = self._nouns.kind(name) if synset is not None else name.split()[-1]
        keywords = [word for word in (*drawing.names[1:], kind) if word and word != name]
        english = {"en": list(dict.fromkeys([name, *keywords]))}
        captions = self._translations.get(normal(name)) or english | self._lexicon(name)
        code = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        concept = self._new[normal(name)] = Concept(code, "", "", captions, weight=weight)
        if synset is not None:
            self._meant[synset] = concept
        return concept


def merge(
    drawn: Iterable[Drawn],
    concepts: list[Concept],
    slugs: list[set[str]],
    nouns: Nouns,
    translations: dict[str, dict[str, list[str]]],
    lexicon: Callable[[str], dict[str, list[str]]],
) -> list[Concept]:
    """Add drawings to the concepts they are of; the new concepts that the others make."""
    merger = Merger(concepts, slugs, nouns, translations, lexicon)
    for drawing in drawn:
        merger.add(drawing)
    return merger.new()
