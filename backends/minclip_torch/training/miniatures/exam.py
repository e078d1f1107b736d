"""Whether a picture of an exam was trained on: the same file, the same pixels, or the same picture in another size.

`overlap` finds the same file and the same pixels. The scripts that make the data refuse to write sets that overlap.
`alike` also finds a drawing that two collections hold, drawn in another size; it takes some discs for others, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from minclip.images import open_image
from minclip_torch.training.entries import DataError, read_entries

SIDE = 16  # pixels: so small a picture does not depend on the size it was drawn in
# Cosine. Of 87 stamps of Tux Paint that Open Clip Art holds, too, 95 % are above 0.93; of 587 others 2 % are.
ALIKE = 0.92
NEARLY_WHITE = 240  # the least channel of what no eye tells from white
BATCH = 1024  # pictures of the training set that are compared at once


def overlap(train: Path, exam: Path) -> list[tuple[Path, Path]]:
    """The pictures of the data set `exam` that the data set `train` holds, too: (the exam's, the training's).

    Raises DataError for a data set that cannot be read, ImageError or OSError for a picture.
    """
    return same(pictures(train), pictures(exam))


def same(trained: Iterable[Path], asked: Iterable[Path]) -> list[tuple[Path, Path]]:
    """The pairs of one file, or of two with the same pixels: (asked, trained)."""
    known: dict[bytes, list[Path]] = {}
    for path in asked:
        for digest in digests(path):
            known.setdefault(digest, []).append(path)
    pairs = ((one, path) for path in trained for digest in digests(path) for one in known.get(digest, ()))
    return list(dict.fromkeys(pairs))


def refuse_overlap(train: Path, exam: Path) -> None:
    """Raise DataError where a picture of the data set `exam` is in the data set `train`."""
    refuse_same(pictures(train), pictures(exam))


def refuse_same(trained: Iterable[Path], asked: Iterable[Path]) -> None:
    """Raise DataError where a picture is both trained on and asked."""
    found = same(trained, asked)
    if found:
        exam, train = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise DataError(f"{train}, which is trained on, is the exam's {exam}{more}: leave it out of one of the two")


def pictures(data: Path) -> list[Path]:
    """The different pictures of a data set."""
    return list(dict.fromkeys(path for entry in read_entries(data) for path in entry.images))


def digests(path: Path) -> tuple[bytes, bytes]:
    """SHA-256 of a picture's file, and of its size and pixels as RGBA, in which what is transparent has no colour."""
    image = open_image(path).convert("RGBA")
    pixels = np.array(image)  # (height, width, 4)
    pixels[pixels[..., 3] == 0] = 0
    decoded = f"{image.width}x{image.height}:".encode() + pixels.tobytes()
    return hashlib.sha256(path.read_bytes()).digest(), hashlib.sha256(decoded).digest()


def alike(train: Path, exam: Path) -> list[tuple[Path, Path]]:
    """The pictures of `exam` that look like one of `train`: (the exam's, the most similar one's); raises as `overlap`.

    The cosine of their looks is above `ALIKE`.
    """
    asked = pictures(exam)
    looks = np.stack([look(open_image(path)) for path in asked])  # (asked, 768)
    best, nearest = np.full(len(asked), ALIKE), [asked[0]] * len(asked)
    trained = pictures(train)
    for part in (trained[i : i + BATCH] for i in range(0, len(trained), BATCH)):
        similarity = looks @ np.stack([look(open_image(path)) for path in part]).T  # (asked, part)
        for row in np.flatnonzero(similarity.max(axis=1) > best):
            best[row], nearest[row] = similarity[row].max(), part[int(similarity[row].argmax())]
    return [(path, nearest[row]) for row, path in enumerate(asked) if best[row] > ALIKE]


def look(image: Image.Image) -> np.ndarray:
    """A picture's `drawn_part` as a small square: a unit vector (768,) about its mean colour, or zeros."""
    part = drawn_part(image)
    if part is None:
        return np.zeros(SIDE * SIDE * 3, np.float32)
    small = np.asarray(part.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    centred = (small - small.mean(axis=(0, 1))).ravel()
    length = np.linalg.norm(centred)
    return centred / length if length > 1e-3 else np.zeros_like(centred)


def drawn_part(image: Image.Image) -> Image.Image | None:
    """The rectangle that holds all of a picture that is not white, over white; None where all is white."""
    image = image.convert("RGBA")
    shown = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    dark = np.asarray(shown).min(axis=2) < NEARLY_WHITE  # (height, width)
    if not dark.any():
        return None
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    return shown.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))
