"""What the towers may be given: each input is checked once, at the edge, before any backend sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minclip.config import Config

__all__ = ["IMAGE_INPUTS", "TEXT_INPUTS", "checked_ids", "checked_pixels", "checked_rows", "inputs_of"]

TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "inputs_embeds", "head_mask")
IMAGE_INPUTS = ("pixel_values", "interpolate_pos_encoding")


def inputs_of(inputs: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The inputs of one tower, out of those of both. Raises ValueError for a name that neither has."""
    for name in inputs:
        if name not in TEXT_INPUTS and name not in IMAGE_INPUTS:
            raise ValueError(f"unknown input {name!r}; the towers take {', '.join(TEXT_INPUTS + IMAGE_INPUTS)}")
    return {name: value for name, value in inputs.items() if name in names}


def checked_pixels(pixel_values: np.ndarray, config: Config, interpolate: bool) -> np.ndarray:
    """pixel_values as they are, or ValueError where the vision tower could not make sense of them."""
    vision = config.vision_config
    assert vision is not None
    shape = pixel_values.shape
    if pixel_values.dtype.kind != "f":
        raise ValueError(f"pixel_values are {pixel_values.dtype}, expected floats made by model.processor(images=...)")
    if len(shape) != 4 or shape[1] != vision.num_channels:
        raise ValueError(f"pixel_values have shape {shape}, expected (images, {vision.num_channels}, height, width)")
    if not shape[0]:
        raise ValueError("pixel_values hold no image; pass at least one")
    side = vision.image_size
    if not interpolate and shape[2:] != (side, side):
        raise ValueError(
            f"pixel_values are {shape[2]}x{shape[3]}, the model's images are {side}x{side}; "
            "resize them or pass interpolate_pos_encoding=True"
        )
    if min(shape[2:]) < vision.patch_size:
        raise ValueError(f"pixel_values are {shape[2]}x{shape[3]}, smaller than one patch of {vision.patch_size}")
    if not np.isfinite(pixel_values).all():
        row = int(np.flatnonzero(~np.isfinite(pixel_values).all(axis=(1, 2, 3)))[0])
        raise ValueError(f"pixel_values of image {row} hold NaN or infinity; normalize finite pixels")
    return pixel_values


def checked_ids(input_ids: np.ndarray, config: Config) -> np.ndarray:
    """input_ids as they are, or ValueError where the text tower could not make sense of them."""
    text = config.text_config
    assert text is not None
    if input_ids.dtype.kind not in "iu" or input_ids.ndim != 2 or not input_ids.size:
        raise ValueError(
            f"input_ids are {input_ids.dtype} of shape {input_ids.shape}, expected integers of shape (texts, tokens)"
        )
    if input_ids.shape[1] > text.context_length:
        raise ValueError(
            f"input_ids hold {input_ids.shape[1]} tokens a text, the model's context has {text.context_length}; "
            "truncate them, end token kept, as model.processor(text=...) does"
        )
    if input_ids.min() < 0 or input_ids.max() >= text.vocab_size:
        row = int(np.flatnonzero(((input_ids < 0) | (input_ids >= text.vocab_size)).any(axis=1))[0])
        bad = next(int(i) for i in input_ids[row] if not 0 <= i < text.vocab_size)
        raise ValueError(
            f"input_ids row {row} holds id {bad}, outside the vocabulary of {text.vocab_size}; "
            "encode texts with this checkpoint's own tokenizer"
        )
    return input_ids


def checked_rows(name: str, indices: Any, config: Config) -> Any:
    """position_ids or token_type_ids as they are, or ValueError where one names a row that its table has not."""
    text = config.text_config
    assert text is not None
    rows = text.max_position_embeddings if name == "position_ids" else getattr(text, "type_vocab_size", 1)
    if isinstance(indices, np.ndarray) and indices.size and not 0 <= indices.min() <= indices.max() < rows:
        bad = int(indices.min() if indices.min() < 0 else indices.max())
        raise ValueError(f"{name} hold {bad}, the model's table has rows 0 to {rows - 1}")
    return indices
