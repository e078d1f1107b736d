"""Data sets of captioned images: a file of JSON lines, one for each thing pictured, with paths relative to the file.

    {"images": ["dog/1.png", "dog/2.png"], "captions": {"en": ["dog", "pet"], "fr": ["chien"]}, "mirror": true}

`captions` may also be a plain list. The first caption of a language is the name, the others are keywords; an ordinary
image-text pair is a line with one image and one caption. `"photograph": true` has the images augmented as photographs
are; `"weight": 2` has the entry drawn twice as often as one that gives no weight.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minclip.errors import MinclipError


class DataError(MinclipError):
    """A data set that cannot be read: the file, the line and what is wrong."""


@dataclass(frozen=True)
class Entry:
    """One thing pictured. mirror: whether its captions are true of its mirror image, too. sets: the named subsets, for
    evaluation, that it belongs to. photograph: whether its images are photographs, not drawings. weight: how often it
    is drawn in proportion to others, above 0."""

    images: tuple[Path, ...]
    captions: dict[str, tuple[str, ...]]
    mirror: bool = False
    sets: tuple[str, ...] = ()
    photograph: bool = False
    weight: float = 1.0


def read_entries(path: Path, languages: tuple[str, ...] | None = None) -> list[Entry]:
    """Read a file of JSON lines. languages: the ones to keep, every entry must have captions in one of them.

    An entry's languages stay in the order of its line. Raises DataError naming the file and the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines() would cut at U+2028, which JSON may hold
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    numbered = enumerate(lines, start=1)
    entries = [_entry(line, path, number, languages) for number, line in numbered if line and not line.isspace()]
    if not entries:
        raise DataError(f"{path} holds no entries")
    return entries


def _entry(line: str, path: Path, number: int, languages: tuple[str, ...] | None) -> Entry:
    where = f"{path}, line {number}"
    try:
        given = json.loads(line)
        captions = given["captions"]
        captions = {"": captions} if isinstance(captions, list) else captions
        kept = {k: _texts(v) for k, v in captions.items() if v and (languages is None or k in ("", *languages))}
        images = tuple(path.parent / name for name in _texts(given["images"]))
        sets = _texts(given.get("sets", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where}: expected an object with images and captions ({error!r:.80})") from None
    if not images or not kept:
        wanted = "" if languages is None else f" in {', '.join(languages)}"
        raise DataError(f"{where}: needs at least one image and one caption{wanted}")
    photograph, weight = given.get("photograph", False), given.get("weight", 1.0)
    if not isinstance(photograph, bool):
        raise DataError(f"{where}: photograph must be true or false, not {photograph!r:.40}")
    if not _is_weight(weight):
        raise DataError(f"{where}: weight must be a finite number above 0, not {weight!r:.40}")
    return Entry(images, kept, bool(given.get("mirror")), sets, photograph, float(weight))


def _is_weight(value: object) -> bool:
    """Whether a value from JSON is a number that a float holds, above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 < value <= sys.float_info.max


def _texts(given: object) -> tuple[str, ...]:
    """A list of texts from JSON. Raises TypeError where it is something else."""
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise TypeError(f"{given!r:.40} is no list of texts")
    return tuple(given)


def name_classes(entries: Sequence[Entry], language: str | None = None) -> tuple[list[str], np.ndarray]:
    """The classes of a zero-shot evaluation: the different names, and the class of each image, int (images,).

    Names that several entries share are one class. language: None for each entry's first.
    """
    names = [(next(iter(e.captions.values())) if language is None else e.captions[language])[0] for e in entries]
    classes = {name: number for number, name in enumerate(dict.fromkeys(names))}
    own = [classes[name] for name, entry in zip(names, entries, strict=True) for _ in entry.images]
    return list(classes), np.array(own)
