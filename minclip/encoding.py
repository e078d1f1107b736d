"""Encoding many: images opened and resized in threads ahead of the towers, handed over in batches, rows gathered."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from minclip.backend import BackendArray, PreparesPixels, Towers
from minclip.errors import BackendError, ImageError
from minclip.images import ImageProcessor, ImageSource, stack
from minclip.pipeline import Progress, ahead, default_workers


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
    finally:
        bar.close()
    return done


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
