"""What a piece of clip art is called: from its title, its file's name, its keywords and its folder, all of them noisy.

Titles name series ("Various Cliparts"), file names end with their author's ("bat_orlando_karam_"), and some artists
write Italian or French. `names` reads the sources in turn and takes the first English name of a thing.
"""

from __future__ import annotations

import html
import re

from minclip_torch.training.miniatures.clipart_words import (
    COLOURS,
    DROPPED,
    FILLERS,
    FOLDERS,
    FOREIGN,
    JOINTS,
    MORE,
    NEVER,
    PARTS,
    RENAMED,
)
from minclip_torch.training.miniatures.wordnet import Nouns

# Titles of series, which name none of their drawings.
SERIES = re.compile(
    r"clip ?arts?\b|sibmission|symbols|_signs|road signs|icons?et|etiquette icons|\bmaps\b|collection|theme$|^moons$|"
    r"^chess pieces$|connectors|sallite|architetto francesco|mirjam|^gramastar|element;|^sport$|email",
    re.IGNORECASE,
)
# Whatever has one of these words in its title or keywords shows no thing, or words and a map.
UNWANTED = re.compile(
    r"\b(logos?|maps?|flags?|flowchart|callouts?|borders?|backgrounds?|patterns?|textures?|kanji|alphabet|fonts?|numbers?|"
    r"diagrams?|charts?|graphs?|roadsigns?|traffic sign|coastline|pointer|cursor|screenshots?|certificates?|"
    r"clip_?art examples?|mapsym_|bullet holes?|pantyhose\d*|splatter|probability|coat of arms|stemma|fingerprint|"
    r"country|states|yves g\w*|advertising|warning|caution|hazard|"
    r"aviso|alertas?|nude|naked|stripper|swastika|interdiction|obligat\w+|protection|illuminati|astrology|zodiac)\b",
    re.IGNORECASE,
)


def plain(text: str) -> list[str]:
    """The words of a title or a file's name, lower case, without numbers, brackets and what fills."""
    text = re.sub(r"\(.*?\)|\[.*?\]|https?:\S+|&#?\w+;|\bhash\b", " ", html.unescape(text))
    text = re.split(r",|:| - |\brpg\b", text.replace("_-_", " - ").replace("_", " "))[0]
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", text).lower().replace("'s", "")
    return [word for word in re.findall(r"[a-z]+", re.sub(r"\d+", " ", text)) if word not in FILLERS]


def names(place: str, title: str, keywords: list[str], creator: str, nouns: Nouns) -> tuple[str, ...]:
    """The name of the thing that a drawing shows, then its keywords; nothing where no name can be found.

    place: the file's path below the collection's folder, with slashes; title, keywords, creator: from its metadata.
    """
    said = " ".join([title, *keywords, place.replace("_", " ")]).replace("RPG map", "")
    if place.startswith(DROPPED) or UNWANTED.search(said.replace("rpg map", "")):
        return ()
    stem = place.removesuffix(".svg").rpartition("/")[2]
    sources = [] if SERIES.search(title) else [plain(title)]
    sources += [_without_author(plain(stem), creator)]
    words = [" ".join(plain(keyword)) for keyword in keywords]
    found = [name for source in sources if (name := _name(source, words, nouns))]
    found += [kind for start, kind in FOLDERS.items() if place.startswith(start)][:1]
    better = max((start for start in RENAMED if place.startswith(start)), key=len, default=None)
    found = found if better is None else [RENAMED[better]]
    if not found or not found[0]:
        return ()
    others = [word for word in words if _is_thing(word, nouns) and word not in found[0].split()]
    return tuple(dict.fromkeys([found[0], *others]))


def _without_author(words: list[str], creator: str) -> list[str]:
    """A file's name without its author's, which ends it and may be cut short."""
    author = [*plain(creator), "architetto", "openclipart", "jean"]
    while len(words) > 1 and any(part.startswith(words[-1]) for part in author):
        words = words[:-1]
    return words


def _name(words: list[str], keywords: list[str], nouns: Nouns) -> str | None:
    """The English name of a thing in a title's words: its head noun and up to two words before that."""
    for word in words:
        if word in FOREIGN:
            return FOREIGN[word]
    joint = next((i for i, word in enumerate(words) if word in JOINTS), len(words))
    head, rest = words[:joint], words[joint + 1 :]
    if joint < len(words) and words[joint] == "of" and head and head[-1] in PARTS and rest:
        inner = _name(rest, keywords, nouns)
        return f"{head[-1]} of {inner}" if inner else None
    for end in range(len(head), 0, -1):
        sizes = [size for size in (3, 2, 1) if size <= end and _is_thing(" ".join(head[end - size : end]), nouns)]
        if not sizes:
            continue
        if end < len(head) and head[end - 1] not in keywords and not _is_thing(head[end - 1], nouns, surely=True):
            continue
        start = end - sizes[0]
        while start > 0 and end - start < 3 and nouns.singular(head[start - 1]):
            start -= 1
        name = head[start:end]
        while len(name) > sizes[0] and (name[0] in NEVER - COLOURS or len(name[0]) < 3):
            name = name[1:]
        return " ".join(name)
    return None


def _is_thing(word: str, nouns: Nouns, surely: bool = False) -> bool:
    """Whether a word or compound names a thing; surely: in its commonest sense."""
    if word in MORE or nouns.singular(word) in MORE:
        return True
    if len(word) < 3 or word in NEVER or nouns.singular(word) in NEVER:
        return False
    return any(nouns.things(word)[: 1 if surely else None])
