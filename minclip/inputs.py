"""What the towers are given: two frozen objects, checked once where they come in, and handed on whole.

Everything that a caller passes is looked at here, before any backend sees it: lists, NumPy's arrays and other
libraries' tensors alike. What fits nothing is a ValueError that names the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import numpy as np

from minclip.config import AnyTextConfig, Config
from minclip.files import one_line
from minclip.images.arrays import host_array

Array = TypeVar("Array")  # NumPy's array at the edge; inside a backend, its own kind


@dataclass(frozen=True, eq=False)
class TextInputs(Generic[Array]):
    """What a text tower is given. b texts, t tokens, d width.

    input_ids (b, t): integers. attention_mask (b, t): boolean, False for padding; None where all are tokens.
    position_ids (t,), (1, t) or (b, t); token_type_ids (b, t). inputs_embeds (b, t, d): instead of the ids' rows of the
    token table. head_mask (layers, heads): factors of the heads' probabilities. ends (b,): the token at which each text
    ends, where the family has a rule for it.
    """

    input_ids: Array
    attention_mask: Array | None = None
    position_ids: Array | None = None
    token_type_ids: Array | None = None
    inputs_embeds: Array | None = None
    head_mask: Array | None = None
    ends: Array | None = None

    def rows(self, some: slice) -> TextInputs[Array]:
        """The same of some of the texts."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        shape = self.input_ids.shape  # type: ignore[attr-defined]
        if given["position_ids"] is not None and given["position_ids"].shape != shape:
            del given["position_ids"]  # one row for all texts
        del given["head_mask"]
        return replace(self, **{name: value[some] for name, value in given.items() if value is not None})


@dataclass(frozen=True, eq=False)
class ImageInputs(Generic[Array]):
    """What a vision tower is given: pixel_values (b, c, height, width), normalized floats.

    interpolate_pos_encoding: whether images may be of another size than the config's, the positions stretched to them.
    """

    pixel_values: Array
    interpolate_pos_encoding: bool = False

    def rows(self, some: slice) -> ImageInputs[Array]:
        """The same of some of the images."""
        return replace(self, pixel_values=self.pixel_values[some])  # type: ignore[index]


TEXT_INPUTS = ("input_ids", "attention_mask", "position_ids", "token_type_ids", "inputs_embeds", "head_mask")
IMAGE_INPUTS = ("pixel_values", "interpolate_pos_encoding")


def split_inputs(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The text tower's and the vision tower's share of the named inputs, without those that are None.

    Raises ValueError for a name that neither takes.
    """
    for name in given:
        if name not in TEXT_INPUTS and name not in IMAGE_INPUTS:
            raise ValueError(f"unknown input {name!r}; the towers take {', '.join(TEXT_INPUTS + IMAGE_INPUTS)}")
    present = {name: value for name, value in given.items() if value is not None}
    return (
        {name: value for name, value in present.items() if name in TEXT_INPUTS},
        {name: value for name, value in present.items() if name in IMAGE_INPUTS},
    )


def checked_inputs(config: Config, given: Mapping[str, Any]) -> dict[str, TextInputs[Any] | ImageInputs[Any]]:
    """What each tower that is given something gets, checked as a model checks it: {"text": ..., "vision": ...}.

    pixel_values of a backend's own kind stay what they are.
    """
    text, vision = split_inputs(dict(given))
    found: dict[str, TextInputs[Any] | ImageInputs[Any]] = {}
    if "input_ids" in text:
        found["text"] = text_inputs(config, **text)
    if "pixel_values" in vision:
        checked = image_inputs(config, **vision)
        found["vision"] = replace(checked, pixel_values=vision["pixel_values"])
    return found


def image_inputs(
    config: Config, pixel_values: Any = None, interpolate_pos_encoding: bool = False
) -> ImageInputs[np.ndarray]:
    """Checked inputs of the vision tower. Raises ValueError where it could not make sense of them."""
    vision = config.vision_config
    assert vision is not None
    if pixel_values is None:
        raise ValueError("pixel_values is missing; make them with model.processor(images=...)")
    pixels = as_numpy("pixel_values", pixel_values)
    shape = pixels.shape
    if pixels.dtype.kind != "f":
        raise ValueError(f"pixel_values are {pixels.dtype}, expected floats made by model.processor(images=...)")
    if len(shape) != 4 or shape[1] != vision.num_channels:
        raise ValueError(f"pixel_values have shape {shape}, expected (images, {vision.num_channels}, height, width)")
    if not shape[0]:
        raise ValueError("pixel_values hold no image; pass at least one")
    side = vision.image_size
    if not interpolate_pos_encoding and shape[2:] != (side, side):
        raise ValueError(
            f"pixel_values are {shape[2]}x{shape[3]}, the model's images are {side}x{side}; "
            "resize them or pass interpolate_pos_encoding=True"
        )
    if min(shape[2:]) < vision.patch_size:
        raise ValueError(f"pixel_values are {shape[2]}x{shape[3]}, smaller than one patch of {vision.patch_size}")
    _check_finite("pixel_values", pixels, "image")
    return ImageInputs(pixels, bool(interpolate_pos_encoding))


def text_inputs(config: Config, **given: Any) -> TextInputs[np.ndarray]:
    """Checked inputs of the text tower, by the names of `TextInputs`; ends are found here.

    Where a family has no rule for the end of a text, inputs_embeds may come without input_ids; all are tokens then.
    Raises ValueError naming the input that the tower could not make sense of.
    """
    text, family = config.text_config, config.family
    assert text is not None
    arrays = {name: as_numpy(name, value) for name, value in given.items() if value is not None}
    if "input_ids" not in arrays and ("inputs_embeds" not in arrays or family.ends is not None):
        raise ValueError("input_ids is missing; make them with model.processor(text=...)")
    embeds = arrays.get("inputs_embeds")
    if embeds is not None and (embeds.ndim != 3 or not embeds.size):
        raise ValueError(f"inputs_embeds has shape {embeds.shape}, expected (texts, tokens, {text.hidden_size})")
    if "input_ids" not in arrays and embeds is not None:
        arrays["input_ids"] = np.full(embeds.shape[:2], (text.pad_token_id + 1) % text.vocab_size)
    ids = arrays["input_ids"] = _checked_ids(arrays["input_ids"], text)
    _check_shapes(arrays, text)
    for name, rows in (
        ("position_ids", text.max_position_embeddings),
        ("token_type_ids", getattr(text, "type_vocab_size", 1)),
    ):
        if name in arrays:
            _check_rows(name, arrays[name], rows)
    for name in ("inputs_embeds", "head_mask"):
        if name in arrays:
            if arrays[name].dtype.kind not in "fiub":
                raise ValueError(f"{name} are {arrays[name].dtype}, expected floats")
            _check_finite(name, arrays[name], "row")
    if "head_mask" in arrays:
        heads = (text.num_hidden_layers, text.num_attention_heads)
        arrays["head_mask"] = np.broadcast_to(arrays["head_mask"], heads)
    if "attention_mask" in arrays:
        mask = _checked_mask(arrays.pop("attention_mask"))
        if not mask.all():  # nothing to hide otherwise, and attention is faster without a mask
            arrays["attention_mask"] = mask
    return TextInputs(**arrays, ends=None if family.ends is None else family.ends(ids, text))


def as_numpy(name: str, value: Any) -> np.ndarray:
    """`host_array` in the machine's own byte order and of at most 64 bits, which is what every backend takes.

    Raises ValueError for ragged lists and for what is no array.
    """
    try:
        array = host_array(value)
    except ValueError:
        raise ValueError(f"{name} is a list whose rows differ in length; pad them to one length") from None
    except (TypeError, OverflowError, RuntimeError) as error:
        raise ValueError(f"{name} cannot become an array: {one_line(error)}") from None
    if array.dtype.kind not in "biuf":
        shown = " ".join(repr(value).split())
        raise ValueError(f"{name} is {type(value).__name__} {shown:.60}, expected an array of numbers")
    wide = array.dtype.kind == "f" and array.dtype.itemsize > 8
    with np.errstate(over="ignore"):  # infinity is refused where numbers must be finite
        return array.astype(np.float64 if wide else array.dtype.newbyteorder("="), copy=False)


def _checked_ids(ids: np.ndarray, text: AnyTextConfig) -> np.ndarray:
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or not ids.size:
        raise ValueError(f"input_ids are {ids.dtype} of shape {ids.shape}, expected integers of shape (texts, tokens)")
    if ids.shape[1] > text.context_length:
        raise ValueError(
            f"input_ids hold {ids.shape[1]} tokens a text, the model's context has {text.context_length}; "
            "truncate them, end token kept, as model.processor(text=...) does"
        )
    if ids.min() < 0 or ids.max() >= text.vocab_size:
        row = int(np.flatnonzero(((ids < 0) | (ids >= text.vocab_size)).any(axis=1))[0])
        bad = next(int(i) for i in ids[row] if not 0 <= i < text.vocab_size)
        raise ValueError(
            f"input_ids row {row} holds id {bad}, outside the config's vocabulary of {text.vocab_size}; "
            "the tokenizer that made it is not this model's"
        )
    return ids.astype(np.int64, copy=False)


def _check_shapes(arrays: dict[str, np.ndarray], text: AnyTextConfig) -> None:
    shape = arrays["input_ids"].shape  # (b, t)
    heads = (text.num_hidden_layers, text.num_attention_heads)
    expected = {
        "attention_mask": [shape],
        "position_ids": [shape, shape[1:], (1, *shape[1:])],
        "token_type_ids": [shape],
        "inputs_embeds": [(*shape, text.hidden_size)],
        "head_mask": [heads, heads[1:]],
    }
    for name, shapes in expected.items():
        if name in arrays and arrays[name].shape not in shapes:
            raise ValueError(f"{name} has shape {arrays[name].shape}, expected {shapes[0]}")


def _checked_mask(mask: np.ndarray) -> np.ndarray:
    """The attention mask as booleans. One that is added to scores, as some libraries have it, is refused."""
    if not np.isin(mask, (0, 1)).all():
        bad = mask[~np.isin(mask, (0, 1))][0]
        raise ValueError(f"attention_mask holds {bad}; it must be 1 for a token and 0 for padding")
    return mask.astype(bool)


def _check_rows(name: str, indices: np.ndarray, rows: int) -> None:
    """Raises ValueError where indices name a row that a table has not; negative ones would wrap in silence."""
    if indices.dtype.kind not in "iu":
        raise ValueError(f"{name} are {indices.dtype}, expected integers")
    if indices.size and not 0 <= indices.min() <= indices.max() < rows:
        bad = int(indices.min() if indices.min() < 0 else indices.max())
        raise ValueError(f"{name} hold {bad}, the model's table has rows 0 to {rows - 1}")


def _check_finite(name: str, values: np.ndarray, what: str) -> None:
    """Raises ValueError for NaN, infinity, and float64 numbers beyond what float32 can hold."""
    largest = np.abs(values, dtype=values.dtype if values.dtype.kind == "f" else np.float64).max(initial=0.0)
    if not largest <= np.finfo(np.float32).max:  # NaN compares false
        flat = np.abs(values.reshape(len(values), -1).astype(np.float64))
        row = int(np.flatnonzero(~(flat <= np.finfo(np.float32).max).all(axis=1))[0])
        raise ValueError(f"{name} of {what} {row} hold NaN, infinity or numbers beyond float32; pass finite ones")
