"""Encoding many: images opened and resized in threads ahead of the towers, texts put in the order of their lengths,
both handed over in batches; rows gathered and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from minclip.backend import BackendArray, PreparesPixels, Towers
from minclip.contrastive import unit
from minclip.errors import BackendError, CheckpointError, ImageError
from minclip.images import ImageProcessor, ImageSource, stack
from minclip.pipeline import Progress, ahead, batched, default_workers
from minclip.ranking import templated
from minclip.tokenizers.batch import checked_text

TEXTS_AT_ONCE = 4096  # of labels in templates, whose vectors are held
ROUNDING = 1e-3  # of a unit vector's length; half precision computes it in float32


def pixel_batches(
    images: Sequence[ImageSource],
    processor: ImageProcessor,
    towers: Towers,
    failed: Callable[[int, ImageError], None],
    *,
    batch_size: int,
    workers: int | None,
    resize_on_device: bool,
) -> Generator[BackendArray]:
    """The images as pixel_values (b, c, height, width), in order, `batch_size` of those that can be read at a time.

    failed: called with the index of an image that cannot be read, and the reason. Other arguments: as for
    `Model.encode_image`.
    """
    device = towers if isinstance(towers, PreparesPixels) else None
    resize = not (resize_on_device and device is not None)
    depth = 2 * batch_size if resize else 0  # whole photographs are too large to hold many
    pending: list[np.ndarray] = []
    for index, pixels in prepared(images, processor, workers=workers, depth=depth, resize=resize):
        if isinstance(pixels, ImageError):
            failed(index, pixels)
        else:
            pending.append(pixels)
        if pending and (len(pending) == batch_size or index == len(images) - 1):
            if device is not None:
                yield device.pixel_values(pending, processor, resized=resize)
            else:
                yield processor.normalize(stack(pending))
            pending = []


def checked_texts(texts: str | Sequence[str]) -> list[str]:
    """The texts as a list. Raises ValueError for none, and for what is no text."""
    if not isinstance(texts, Iterable):
        raise ValueError(f"texts must be a str or a sequence of them, not {texts!r:.60}")
    batch = [texts] if isinstance(texts, str) else list(texts)
    if not batch:
        raise ValueError("texts is empty; pass at least one text")
    return [checked_text(text) for text in batch]


def text_rows(
    texts: Sequence[str],
    embed: Callable[[Sequence[str]], BackendArray],
    towers: Towers,
    batch_size: int,
    bar: Progress,
) -> BackendArray:
    """The rows (n, p) of texts, in their order. embed: gives those of a batch.

    Equal texts are embedded once. Where there are several batches, texts of like length are embedded together, so that
    a batch holds little padding; the longest come first, which tells at once whether the memory is enough. UTF-8 is
    about as long as the tokens in any script.
    """
    different = list(dict.fromkeys(texts))
    if len(different) > batch_size:
        different.sort(key=lambda text: -len(text.encode(errors="surrogatepass")))
    row = {text: i for i, text in enumerate(different)}
    rows = np.array([row[text] for text in texts])
    bar.advance(len(texts) - len(different))
    try:
        parts = gathered(map(embed, batched(different, batch_size)), towers, bar)
    except BackendError as error:
        if error.finished is not None:  # of these, the ones before the first text that is not done
            before = int((rows >= len(error.finished)).argmax())
            error.finished = error.finished[rows[:before]] if before else None
        raise
    return towers.join(parts)[rows]


def label_rows(
    labels: Sequence[str], templates: Sequence[str], encode: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """Unit vectors (n, p) of labels: of each the mean over the templates, renormalized.

    encode: gives the unit vectors of texts. It is given some labels at a time, in all templates, so that the vectors of
    a thousand labels in eighty templates are never held at once.
    """
    parts = []
    for part in batched(labels, max(1, TEXTS_AT_ONCE // len(templates))):
        embeds = encode(templated(templates, part)).reshape(len(templates), len(part), -1)
        parts.append(embeds[0] if len(templates) == 1 else unit(embeds.mean(axis=0)))
    return np.concatenate(parts)


def gathered(parts: Iterable[BackendArray], towers: Towers, bar: Progress) -> list[BackendArray]:
    """The rows of every batch.

    Where a batch fails for want of memory, the BackendError's `finished` holds the rows before it.
    """
    done: list[BackendArray] = []
    try:
        for part in parts:
            done.append(part)
            bar.advance(len(part))
    except BackendError as error:
        error.finished = towers.to_numpy(towers.join(done)) if done else None
        raise
    return done


def unit_rows(source: str, kind: str, parts: Sequence[BackendArray], towers: Towers) -> BackendArray:
    """The unit vectors (n, p) of all batches, or CheckpointError, which names the model, where one is not of length 1.

    Only one number a row leaves the device for that.
    """
    squares = [(part * part).sum(-1) for part in parts]  # NaN where the row holds one
    lengths = finite(source, f"{kind} embeddings", towers.to_numpy(towers.join(squares)))
    if (wrong := np.abs(lengths - 1) > ROUNDING).any():
        raise _no_answer(source, f"{kind} embeddings", int(wrong.argmax()), "are 0, or too large to be squared")
    return towers.join(parts)


def finite(source: str, what: str, rows: np.ndarray) -> np.ndarray:
    """The rows (n, ...), or CheckpointError, which names the model, where one holds NaN or infinity."""
    if not (fine := np.isfinite(rows)).all():
        row = int(np.flatnonzero(~fine.all(axis=tuple(range(1, rows.ndim))))[0])
        raise _no_answer(source, what, row, "hold NaN or infinity")
    return rows


def _no_answer(source: str, what: str, row: int, are: str) -> CheckpointError:
    """No answer is better than a wrong one."""
    return CheckpointError(
        f"{source}: the {what} of row {row} {are}; either the weights do, which "
        f"minclip info --check {source} tells, or half precision overflows, which dtype='float32' does not"
    )


def check_batch_size(batch_size: int) -> None:
    """Raises ValueError for what is no size of a batch."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")


def prepared(
    images: Sequence[ImageSource], processor: ImageProcessor, *, workers: int | None, depth: int, resize: bool
) -> Iterator[tuple[int, np.ndarray | ImageError]]:
    """Each image's index and bytes (h, w, 3), or the error that it gave, in order, made in threads ahead of the reader.

    workers: how many threads, None for one a core. depth: how many images ahead of those in work. resize: whether to
    resize and crop, too, or only to decode.
    """
    threads = default_workers() if workers is None else workers
    if threads < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")

    def opened() -> Iterator[tuple[int, ImageSource | ImageError]]:
        for index, image in enumerate(images):  # in one thread: two must not read one file or decode one picture
            try:
                yield index, image if isinstance(image, str | os.PathLike | bytes) else processor.picture(image)
            except ImageError as error:
                yield index, error

    def prepare(numbered: tuple[int, ImageSource | ImageError]) -> tuple[int, np.ndarray | ImageError]:
        index, image = numbered
        if isinstance(image, ImageError):
            return index, image
        try:
            picture = image if isinstance(image, Image.Image) else processor.picture(image)
        except ImageError as error:
            return index, error
        return index, processor.resize_and_crop(picture) if resize else np.asarray(picture)

    return ahead(prepare, opened(), workers=threads, depth=depth + threads)
