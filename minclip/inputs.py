"""What the towers may be given: each input is checked once, at the edge, before any backend sees it.

Lists become arrays. A backend's own arrays are taken as they are: looking into them could mean waiting for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minclip.config import Config, RobertaConfig, TextConfig

TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "inputs_embeds", "head_mask")
IMAGE_INPUTS = ("pixel_values", "interpolate_pos_encoding")


def inputs_of(inputs: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The inputs of one tower, out of those of both. Raises ValueError for a name that neither has."""
    for name in inputs:
        if name not in TEXT_INPUTS and name not in IMAGE_INPUTS:
            raise ValueError(f"unknown input {name!r}; the towers take {', '.join(TEXT_INPUTS + IMAGE_INPUTS)}")
    return {name: value for name, value in inputs.items() if name in names}


def checked_pixels(pixel_values: Any, config: Config, interpolate: bool) -> Any:
    """pixel_values, or ValueError where the vision tower could not make sense of them."""
    vision = config.vision_config
    assert vision is not None
    if pixel_values is None:
        raise ValueError("pixel_values is missing; make them with model.processor(images=...)")
    pixel_values = _as_array("pixel_values", pixel_values)
    if not isinstance(pixel_values, np.ndarray):
        return pixel_values
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


def checked_text(given: dict[str, Any], config: Config) -> dict[str, Any]:
    """The text tower's inputs, or ValueError naming the one that it could not make sense of."""
    text = config.text_config
    assert text is not None
    inputs = {name: _as_array(name, value) for name, value in given.items() if value is not None}
    ids, embeds = inputs.get("input_ids"), inputs.get("inputs_embeds")
    if ids is None and (embeds is None or isinstance(text, TextConfig)):
        raise ValueError("input_ids is missing; make them with model.processor(text=...)")
    if isinstance(ids, np.ndarray):
        _check_ids(ids, text)
    given_first = embeds if ids is None else ids
    shape = tuple(given_first.shape[:2]) if given_first is not None else ()  # (b, t)
    expected = {
        "attention_mask": [shape],
        "position_ids": [shape, shape[1:], (1, *shape[1:])],
        "token_type_ids": [shape],
        "inputs_embeds": [(*shape, text.hidden_size)],
        "head_mask": [(text.num_hidden_layers, text.num_attention_heads)],
    }
    for name, shapes in expected.items():
        if name in inputs and tuple(inputs[name].shape) not in shapes:
            raise ValueError(f"{name} has shape {tuple(inputs[name].shape)}, expected {shapes[0]}")
    _check_rows("position_ids", inputs.get("position_ids"), text.max_position_embeddings)
    _check_rows("token_type_ids", inputs.get("token_type_ids"), getattr(text, "type_vocab_size", 1))
    return inputs


def _as_array(name: str, value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} is a list whose rows differ in length; pad them to one length") from None


def _check_ids(input_ids: np.ndarray, text: TextConfig | RobertaConfig) -> None:
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
            f"input_ids row {row} holds id {bad}, outside the config's vocabulary of {text.vocab_size}; "
            "the tokenizer that made it is not this model's"
        )


def _check_rows(name: str, indices: Any, rows: int) -> None:
    """Raises ValueError where indices of a table name a row that it has not; negative ones would wrap in silence."""
    if not isinstance(indices, np.ndarray):
        return
    if indices.dtype.kind not in "iu":
        raise ValueError(f"{name} are {indices.dtype}, expected integers")
    if indices.size and not 0 <= indices.min() <= indices.max() < rows:
        bad = int(indices.min() if indices.min() < 0 else indices.max())
        raise ValueError(f"{name} hold {bad}, the model's table has rows 0 to {rows - 1}")
