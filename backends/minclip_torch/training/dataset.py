"""Pictures and what they are called, held in memory, and the batches that training takes of them.

A data set is a file of JSON lines, one per thing pictured, with paths relative to the file:

    {"images": ["dog/1.png", "dog/2.png"], "captions": {"en": ["dog", "pet"], "fr": ["chien"]}, "mirror": true}

`captions` may also be a plain list. The first caption of a language is the name, the others are keywords; an ordinary
image-text pair is a line with one image and one caption. Which batch belongs to a step follows from the seed and the
step alone, so that a run resumed at any step, or split over processes, sees what an unbroken one sees.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minclip.errors import MinclipError
from minclip.images import open_image, to_rgb


class DataError(MinclipError):
    """A data set that cannot be read: the file, the line and what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One thing pictured. `sets`: subsets of an evaluation that it belongs to; `mirror`: whether its mirror image
    still is what its captions say."""

    images: tuple[Path, ...]
    captions: dict[str, tuple[str, ...]]
    mirror: bool = False
    sets: tuple[str, ...] = ()


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
    return Entry(images, kept, bool(given.get("mirror")), sets)


def _texts(given: object) -> tuple[str, ...]:
    """A list of texts from JSON. Raises TypeError where it is something else."""
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise TypeError(f"{given!r:.40} is no list of texts")
    return tuple(given)


@dataclass(frozen=True)
class Pictures:
    """Every image of some entries: RGBA bytes (n, 4, side, side), and where each entry's images lie, first and end."""

    pixels: Tensor
    spans: np.ndarray  # (entries, 2)


def read_pictures(entries: list[Entry], side: int) -> Pictures:
    """Decode all images, the shorter side resized to `side` and the middle kept. Raises ImageError naming the file."""
    paths = [path for entry in entries for path in entry.images]
    pixels = np.empty((len(paths), 4, side, side), np.uint8)

    def load(row: int) -> None:
        pixels[row] = np.asarray(_square(paths[row], side)).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(load, range(len(paths))))  # raises what a thread raised
    counts = [len(entry.images) for entry in entries]
    ends = np.cumsum(counts)
    return Pictures(torch.from_numpy(pixels), np.stack([ends - counts, ends], axis=1))


def _square(path: Path, side: int) -> Image.Image:
    """The middle of a picture, RGBA, side x side."""
    image = open_image(path)
    image = (image if image.has_transparency_data else to_rgb(image, str(path))).convert("RGBA")
    if image.size != (side, side):
        scale = side / min(image.size)
        width, height = (max(side, round(n * scale)) for n in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = ((n - side) // 2 for n in image.size)
        image = image.crop((left, top, left + side, top + side))
    return image


@dataclass(frozen=True)
class Captioner:
    """How an entry is put into words, drawn anew each time: a language, its name or its keywords, a template.

    first: how often the first of an entry's languages is taken outright; otherwise any of them is. name, keyword: how
    often the name and how often one keyword stands alone; the rest is the name with one or two keywords. templates:
    forms with one `{}`, around half of the captions in the first language.
    """

    first: float = 0.2
    name: float = 0.6
    keyword: float = 0.15
    templates: tuple[str, ...] = ("{}",)

    def __call__(self, entry: Entry, rng: np.random.Generator) -> str:
        languages = list(entry.captions)
        which = 0 if rng.random() < self.first else int(rng.integers(len(languages)))
        name, *keywords = entry.captions[languages[which]]
        draw = rng.random()
        text = name
        if keywords and draw >= self.name:
            chosen = [keywords[i] for i in rng.permutation(len(keywords))[: int(rng.integers(1, 3))]]
            text = chosen[0] if draw < self.name + self.keyword else ", ".join([name, *chosen])
        if which or rng.random() < 0.5 or not self.templates:
            return text
        return self.templates[int(rng.integers(len(self.templates)))].replace("{}", text)


@dataclass(frozen=True)
class Batch:
    """What one process learns from in one step: bytes (b, 4, side, side), texts (b), which may be mirrored (b).

    entries: which entry each row of the whole batch is, over all processes.
    """

    pixels: Tensor
    texts: list[str]
    mirror: Tensor
    entries: np.ndarray


def draw_batch(
    pictures: Pictures, entries: list[Entry], captioner: Captioner, size: int, seed: int, step: int, part: slice
) -> Batch:
    """The batch of a step: `size` entries, no one twice unless there are fewer, each with one image and one caption.

    part: which rows of it this process works on.
    """
    rng = np.random.default_rng([seed, step])
    count = len(entries)
    chosen = np.concatenate([rng.permutation(count) for _ in range(-(-size // count))])[:size]
    rows, texts = [], []
    for entry in chosen:
        rows.append(int(rng.integers(*pictures.spans[entry])))
        texts.append(captioner(entries[entry], rng))
    mirror = torch.tensor([entries[entry].mirror for entry in chosen])
    return Batch(pictures.pixels[rows[part]], texts[part], mirror[part], chosen)


def shared_captions(entries: list[Entry]) -> Callable[[np.ndarray], Tensor]:
    """A function of entry indices (b): how many captions two entries share, over how many either has, (b, b).

    Counted in each entry's first language: 1 on the diagonal, something between 0 and 1 for near-synonyms.
    """
    ids: dict[str, int] = {}
    first = [dict.fromkeys(next(iter(entry.captions.values()))) for entry in entries]
    sets = [[ids.setdefault(text, len(ids)) for text in texts] for texts in first]

    def overlap(chosen: np.ndarray) -> Tensor:
        rows = [row for row, entry in enumerate(chosen) for _ in sets[entry]]
        found, columns = np.unique([number for entry in chosen for number in sets[entry]], return_inverse=True)
        hot = torch.zeros(len(chosen), len(found))  # a row an entry, a column a caption that some of them has
        hot[rows, columns] = 1.0
        both = hot @ hot.T
        counts = hot.sum(dim=1)
        return both / (counts[:, None] + counts[None, :] - both)

    return overlap
