"""What stands before the towers: the tokenizer and the image processor of one checkpoint, as one call."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from minclip.backend import BackendArray
from minclip.checkpoints import open_clip
from minclip.config import Config
from minclip.errors import ConfigError, TokenizerError
from minclip.files import write_together
from minclip.images import ImageProcessor, ImageSource
from minclip.tokenizers import find_tokenizer
from minclip.tokenizers.batch import Padding, Tokenizer


class Processor:
    """Texts and images to the arrays that a model takes.

    `image_processor` is built from the checkpoint's preprocessor_config.json; where a folder has none, it is CLIP's
    own with the sides of the config's `image_size`. `tokenizer` comes from the tokenizer files; where there are none,
    using it raises TokenizerError, so that a checkpoint without them still takes ids.
    """

    def __init__(
        self, tokenizer: Tokenizer | None, image_processor: ImageProcessor, *, context_length: int, missing: str = ""
    ) -> None:
        self._tokenizer = tokenizer
        self._missing = missing
        self.image_processor = image_processor
        self.context_length = context_length

    @classmethod
    def for_config(cls, config: Config) -> Processor:
        """CLIP's own image processor with the sides of the config's image_size, and no tokenizer."""
        missing = "this model was made from a config and has no tokenizer; give it input_ids"
        length = 0 if config.text_config is None else config.text_config.context_length
        return cls(None, _default_image_processor(config), context_length=length, missing=missing)

    @classmethod
    def from_checkpoint(cls, path: Path, config: Config) -> Processor:
        """Read the files beside the weights. path: a checkpoint folder, or a lone weight file.

        Raises TokenizerError or ConfigError where one is broken.
        """
        folder, text = path if path.is_dir() else path.parent, config.text_config
        tokenizer = find_tokenizer(folder) if "text" in config.towers else None
        if any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
            image_processor = ImageProcessor.from_folder(folder)
        else:
            image_processor = _default_image_processor(config)
            fields = open_clip.image_processor_fields(path, image_processor.crop_size["height"])
            try:
                image_processor = image_processor.replace(**fields)
            except ConfigError as error:
                raise ConfigError(f"{folder / open_clip.CONFIG}: {error}") from None
        length = 0 if text is None else text.context_length
        if tokenizer is not None and text is not None:
            length = min(length, tokenizer.max_length)
            try:
                tokenizer.check_vocabulary(text.vocab_size)
            except TokenizerError as error:
                raise TokenizerError(f"{folder}: {error}") from None
        missing = (
            f"{folder} has no tokenizer files, so it takes ids but no text; put this checkpoint's own "
            f"({config.family.tokenizer_files}) beside its weights"
        )
        return cls(tokenizer, image_processor, context_length=length, missing=missing)

    def __repr__(self) -> str:
        tokenizer = self._tokenizer if self._tokenizer is not None else "no tokenizer"
        return f"<Processor: {tokenizer}, at most {self.context_length} tokens; {self.image_processor}>"

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer. Raises TokenizerError where its folder has none."""
        if self._tokenizer is None:
            raise TokenizerError(self._missing)
        return self._tokenizer

    @overload
    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        padding: Padding = "longest",
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: Literal["np"] | None = None,
        **image_overrides: Any,
    ) -> dict[str, np.ndarray]: ...
    @overload
    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        padding: Padding = "longest",
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: Literal["pt"],
        **image_overrides: Any,
    ) -> dict[str, BackendArray]: ...
    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: ImageSource | Sequence[ImageSource] | None = None,
        *,
        padding: Padding = "longest",
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: Literal["np", "pt"] | None = None,
        **image_overrides: Any,
    ) -> dict[str, np.ndarray] | dict[str, BackendArray]:
        """input_ids and attention_mask (b, t) int64 of the texts, pixel_values (b, 3, h, w) float32 of the images.

        padding: "longest" or True pads to the longest text of the batch, "max_length" to max_length; False refuses
        texts of different lengths. truncation: cut texts that are longer than max_length, end token kept. max_length:
        None is what the model can take. return_tensors: None or "np" gives NumPy's arrays, "pt" PyTorch's tensors.
        Further arguments override fields of the image processor for this call. Raises TokenizerError, ImageError, or
        ValueError where neither text nor images are given.
        """
        if text is None and images is None:
            raise ValueError("nothing was given; pass text=, images= or both")
        if return_tensors not in (None, "np", "pt"):
            raise ValueError(f"return_tensors is {return_tensors!r}, expected 'np', 'pt' or None")
        result: dict[str, np.ndarray] = {}
        if text is not None:
            limit = self.context_length if max_length is None else max_length
            result.update(self.tokenizer(text, padding=padding, truncation=truncation, max_length=limit))
        if images is not None:
            result["pixel_values"] = self.image_processor(images, **image_overrides)
        elif image_overrides:
            raise ValueError(f"{', '.join(image_overrides)} would change how images are processed, but there are none")
        return _torch_tensors(result) if return_tensors == "pt" else result

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text that ids stand for; see `Tokenizer.decode`."""
        return self.tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def batch_decode(self, rows: Sequence[Sequence[int]], *, skip_special_tokens: bool = False) -> list[str]:
        """The text of each row of ids."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def files(self, folder: str | Path) -> dict[str, bytes]:
        """Name and content of the tokenizer's and the image processor's files, as they belong into a folder.

        Raises TokenizerError where files there would make it unclear which tokenizer was saved.
        """
        files = self.image_processor.files(folder)
        if self._tokenizer is not None:
            self._tokenizer.check_folder(folder)
            files |= self._tokenizer.files()
        return files

    def save(self, folder: str | Path) -> None:
        """Write `files` into a folder, all of them or none."""
        write_together(folder, self.files(folder))


def _torch_tensors(arrays: dict[str, np.ndarray]) -> dict[str, BackendArray]:
    """The arrays as PyTorch's tensors, which share their memory; PyTorch is imported only for this."""
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise ValueError(f"return_tensors='pt' needs PyTorch ({error}): pip install 'minclip[torch]'") from None
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _default_image_processor(config: Config) -> ImageProcessor:
    side = 224 if config.vision_config is None else config.vision_config.image_size
    return ImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
