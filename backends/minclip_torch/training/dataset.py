"""The images of a data set in memory, and the batches that training draws from them.

The batch of a step depends on the seed and the step alone, so that a run that is resumed, or split over processes, sees
the same batches as one that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from minclip.images import check_affordable, open_image, to_rgb
from minclip_torch.training import frames
from minclip_torch.training.entries import DataError, Entry


@dataclass(frozen=True)
class DecodedImages:
    """All images of a list of entries, in memory."""

    pixels: Tensor  # uint8 (n, 4, side, side), RGBA
    spans: np.ndarray  # (entries, 2): the first of each entry's images, and the one after its last


def decode_images(entries: list[Entry], side: int) -> DecodedImages:
    """Decode all images, resized to a shorter side of `side` and center-cropped.

    Raises ImageError naming the file, DataError where they do not fit into memory.
    """
    paths = [path for entry in entries for path in entry.images]
    try:
        pixels = np.empty((len(paths), 4, side, side), np.uint8)
    except MemoryError:
        size = f"{len(paths) * 4 * side**2 / 1e9:.0f} GB"
        raise DataError(
            f"{len(paths)} images of {side} x {side} pixels take {size}, more than this machine has"
        ) from None

    def load(row: int) -> None:
        pixels[row] = np.asarray(_square(paths[row], side)).transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(load, range(len(paths))))  # raises what a thread raised
    counts = [len(entry.images) for entry in entries]
    ends = np.cumsum(counts)
    return DecodedImages(torch.from_numpy(pixels), np.stack([ends - counts, ends], axis=1))


def _square(path: Path, side: int) -> Image.Image:
    """One image, resized and center-cropped to RGBA, side x side."""
    image = open_image(path)
    scale = side / min(image.size)
    width, height = (max(side, round(n * scale)) for n in image.size)
    check_affordable(max(height, image.height), width, f"{path}: resizing {image.width}x{image.height}")
    image = (image if image.has_transparency_data else to_rgb(image, str(path))).convert("RGBA")
    if image.size != (side, side):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = ((n - side) // 2 for n in image.size)
        image = image.crop((left, top, left + side, top + side))
    return image


@dataclass(frozen=True)
class Captioner:
    """Draws a caption for an entry: a language, its name or its keywords, a phrase around it.

    first: the probability of taking the entry's first language; otherwise it is any of them. name, keyword: the
    probabilities of the name alone and of one keyword alone; the rest is the name with one or two keywords, as a list.
    framed: the probability that a name or keyword alone stands in a phrase of its language (`frames.FRAMES`: "a dog",
    "C'est un chien."); captions without a language, or in one that has no frames, stay as they are. templates: strings
    with one `{}` that stand in for the phrases of the first language, or of none, and are taken as they are written.
    """

    first: float = 0.2
    name: float = 0.6
    keyword: float = 0.15
    framed: float = 0.5
    templates: tuple[str, ...] = ()

    def __call__(self, entry: Entry, rng: np.random.Generator) -> str:
        languages = list(entry.captions)
        which = 0 if rng.random() < self.first else int(rng.integers(len(languages)))
        name, *keywords = entry.captions[languages[which]]
        draw = rng.random()
        text = name
        if keywords and draw >= self.name:
            chosen = [keywords[i] for i in rng.permutation(len(keywords))[: int(rng.integers(1, 3))]]
            if draw >= self.name + self.keyword:
                return ", ".join([name, *chosen])
            text = chosen[0]
        if which or not self.templates:
            return frames.draw(text, languages[which], self.framed, rng)
        if rng.random() >= self.framed:
            return text
        return self.templates[int(rng.integers(len(self.templates)))].replace("{}", text)


@dataclass(frozen=True)
class Batch:
    """The rows of one step's batch that one process works on; b of them."""

    pixels: Tensor  # uint8 (b, 4, side, side), RGBA
    texts: list[str]  # b captions
    mirror: Tensor  # bool (b,): which may be mirrored
    photograph: Tensor  # bool (b,): which are photographs
    entries: np.ndarray  # int (batch,): the entry of each row of the whole batch, over all processes


def draw_batch(
    images: DecodedImages, entries: list[Entry], captioner: Captioner, size: int, seed: int, step: int, part: slice
) -> Batch:
    """The batch of a step: `size` entries, none twice unless there are fewer, each with one image and one caption.

    An entry of a larger weight is drawn more often, but never twice before all are drawn once.

    part: the rows of it that this process works on.
    """
    rng = np.random.default_rng([seed, step])
    chosen = _choose(np.array([entry.weight for entry in entries]), size, rng)
    rows, texts = [], []
    for entry in chosen:
        rows.append(int(rng.integers(*images.spans[entry])))
        texts.append(captioner(entries[entry], rng))
    mirror = torch.tensor([entries[entry].mirror for entry in chosen])
    photograph = torch.tensor([entries[entry].photograph for entry in chosen])
    return Batch(images.pixels[rows[part]], texts[part], mirror[part], photograph[part], chosen)


def _choose(weights: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Entries (size,), without replacement and in proportion to their weights; all of them, round by round, before any
    comes again. Waiting times of rate w, the shortest first (Efraimidis and Spirakis 2006)."""
    count = len(weights)
    rounds = range(-(-size // count))
    if (weights == weights[0]).all():
        orders = [rng.permutation(count) for _ in rounds]
    else:
        orders = [np.argsort(rng.exponential(size=count) / weights, kind="stable") for _ in rounds]
    return np.concatenate(orders)[:size]


def shared_captions(entries: list[Entry]) -> Callable[[np.ndarray], Tensor]:
    """A function from entry indices (b) to the Jaccard index of each two entries' captions, (b, b).

    That is the number of captions that both have over the number that either has, in each entry's first language: 1 on
    the diagonal, between 0 and 1 for near-synonyms.
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
