"""What stands before the towers: the tokenizer and the image processor of one checkpoint, as one call."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minclip.config import Config
from minclip.errors import ConfigError, ImageError, TokenizerError
from minclip.files import read_json
from minclip.images import ImageProcessor, ImageSource
from minclip.pipeline import ahead, default_workers
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.batch import Tokenizer


class Processor:
    """Texts and images to the arrays that a model takes.

    `image_processor` is built from the checkpoint's preprocessor_config.json; where a folder has none, it is CLIP's
    own with the sides of the config's `image_size`. `tokenizer` comes from the tokenizer files; where there are none,
    using it raises TokenizerError, so that a checkpoint without them still takes ids.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, image_processor: ImageProcessor, *, context_length: int, folder: Path
    ) -> None:
        self._tokenizer = tokenizer
        self._folder = folder
        self.image_processor = image_processor
        self.context_length = context_length

    @classmethod
    def from_folder(cls, folder: Path, config: Config) -> Processor:
        """Read the files beside the weights. Raises TokenizerError or ConfigError where one is broken."""
        text, vision = config.text_config, config.vision_config
        tokenizer = find_tokenizer(folder) if "text" in config.towers else None
        side = 224 if vision is None else vision.image_size
        image_processor = ImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        if any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
            image_processor = ImageProcessor.from_folder(folder)
        elif (folder / "open_clip_config.json").is_file():
            image_processor = _open_clip_processor(folder / "open_clip_config.json", side)
        length = 0 if text is None else text.context_length
        if tokenizer is not None and text is not None:
            length = min(length, tokenizer.max_length)
            frame = max(tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
            if frame >= text.vocab_size:
                raise TokenizerError(
                    f"{folder}: the tokenizer frames texts with id {frame}, and config.json says vocab_size "
                    f"{text.vocab_size}; these files are not of one checkpoint"
                )
        return cls(tokenizer, image_processor, context_length=length, folder=folder)

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer. Raises TokenizerError where its folder has none."""
        if self._tokenizer is None:
            raise TokenizerError(
                f"{self._folder} has no tokenizer files, so it takes ids but no text; put vocab.json and merges.txt, "
                "tokenizer.json or a SentencePiece .model of this checkpoint beside its config.json"
            )
        return self._tokenizer

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        padding: Any = "longest",
        truncation: bool = True,
        **image_overrides: Any,
    ) -> dict[str, np.ndarray]:
        """input_ids and attention_mask (b, t) int64 of the texts, pixel_values (b, 3, h, w) float32 of the images.

        Further arguments override fields of the image processor for this call. Raises TokenizerError, ImageError, or
        ValueError where neither text nor images are given.
        """
        if text is None and images is None:
            raise ValueError("the processor was given nothing; pass text=, images= or both")
        result: dict[str, np.ndarray] = {}
        if text is not None:
            result.update(self.tokenizer(text, padding=padding, truncation=truncation, max_length=self.context_length))
        if images is not None:
            result["pixel_values"] = self.image_processor(images, **image_overrides)
        elif image_overrides:
            raise ValueError(f"{', '.join(image_overrides)} would change how images are processed, but there are none")
        return result

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files and preprocessor_config.json."""
        if self._tokenizer is not None:
            self._tokenizer.save(folder)
        self.image_processor.save(folder)


def _open_clip_processor(path: Path, side: int) -> ImageProcessor:
    """What the `preprocess_cfg` of open_clip's config asks for; where it is silent, CLIP's own, cropped as there."""
    given = read_json(path, ConfigError).get("preprocess_cfg") or {}
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: preprocess_cfg must be a JSON object, not {type(given).__name__}")
    mode, resample = given.get("resize_mode", "shortest"), given.get("interpolation", "bicubic")
    if mode not in ("shortest", "squash") or resample not in ("bicubic", "bilinear"):
        raise ConfigError(f"{path}: resize_mode {mode!r} with interpolation {resample!r} is not supported")
    square = {"height": side, "width": side}
    statistics = {f"image_{name}": given[name] for name in ("mean", "std") if name in given}
    size = square if mode == "squash" else {"shortest_edge": side}
    try:
        return ImageProcessor(
            size=size,
            crop_size=square,
            resample=3 if resample == "bicubic" else 2,
            crop_rounding="half_even",
            **statistics,
        )
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


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
