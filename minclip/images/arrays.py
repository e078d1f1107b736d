"""Images that are arrays: NumPy's or a framework's, bytes or floats, channels first or last."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from minclip.errors import ImageError
from minclip.files import one_line

LAYOUTS = ("channels_first", "channels_last")  # Transformers' names, its `input_data_format`
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA


def is_array(source: Any) -> bool:
    """Whether this is an array or a tensor. (A PIL.Image turns into an array, too, but is none.)"""
    return hasattr(source, "__array__") and not isinstance(source, Image.Image)


def to_array(source: Any) -> np.ndarray:
    """`host_array` of an array or a tensor. Raises ImageError where it cannot become one."""
    try:
        return host_array(source)
    except Exception as error:  # a tensor without data, sparse, quantized, ...
        reason = one_line(error) or type(error).__name__
        raise ImageError(f"{type(source).__name__} object cannot become a NumPy array: {reason}") from error


def host_array(value: Any) -> np.ndarray:
    """A NumPy array of an array, a list or a tensor, wherever it lies, with or without a gradient; bfloat16 as float32.

    No framework is imported: a tensor knows how to be detached, moved and widened. Memory is shared where it can be.
    """
    tensor = value.detach() if hasattr(value, "detach") else value
    tensor = tensor.cpu() if hasattr(tensor, "cpu") else tensor
    if str(getattr(tensor, "dtype", "")).endswith("bfloat16"):  # of torch's, which NumPy lacks, or of ml_dtypes'
        tensor = tensor.float() if hasattr(tensor, "float") else tensor.astype(np.float32)
    return np.asarray(tensor)


def array_picture(array: np.ndarray, input_data_format: str | None = None) -> Image.Image:
    """uint8 (h, w), (h, w, 1|3|4) or (1|3|4, h, w), as a grey, RGB or RGBA picture.

    input_data_format: "channels_first" or "channels_last". Without it, where both readings fit, as for (3, 5, 3), the
    channels are last: so an array means the same as the picture that it was made from, whatever its size.
    (Transformers takes them to be first.)
    """
    if array.dtype != np.uint8:
        nan = "contains NaN and " if array.dtype.kind == "f" and np.isnan(array).any() else ""
        advice = {
            "f": "if it runs from 0 to 1, call the image processor with do_rescale=False, "
            "or pass (array * 255).round().astype('uint8')",
            "b": "pass array.astype('uint8') * 255",
            "u": "if it runs to 65535, pass (array >> 8).astype('uint8')",
        }.get(array.dtype.kind, "if it runs from 0 to 255, pass array.astype('uint8')")
        raise ImageError(f"image array of shape {array.shape} {nan}is {array.dtype}, expected uint8; {advice}")
    array = channels_last(array, input_data_format)
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))


def float_pixels(array: np.ndarray, input_data_format: str | None = None) -> np.ndarray:
    """Floats in 0..1, of the shapes that `array_picture` takes, as float32 (h, w, 3).

    Transparency is laid over white. Raises ImageError for other values, NaN and infinity among them.
    """
    pixels = channels_last(array, input_data_format)
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise ImageError(
            f"image array of shape {array.shape} and {array.dtype} runs from {low:g} to {high:g}, expected 0 to 1 "
            "(do_rescale is false, so it is taken as it stands)"
        )
    pixels = pixels.astype(np.float32)
    if pixels.shape[2] == 4:
        colour, alpha = pixels[..., :3], pixels[..., 3:]
        pixels = colour * alpha + (1 - alpha)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))


def check_layout(input_data_format: str | None) -> None:
    """Raises ValueError for a layout that does not exist."""
    if input_data_format is not None and input_data_format not in LAYOUTS:
        raise ValueError(f"input_data_format is {input_data_format!r}, expected {' or '.join(LAYOUTS)}")


def channels_last(array: np.ndarray, input_data_format: str | None) -> np.ndarray:
    """An array (h, w), (h, w, c) or (c, h, w) as (h, w, c), c 1, 3 or 4. Raises ImageError for another shape."""
    check_layout(input_data_format)
    if array.size == 0:
        raise ImageError(f"image array of shape {array.shape} has no pixels")
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3:
        last = array.shape[-1] in CHANNELS if input_data_format is None else input_data_format == "channels_last"
        moved = array if last else np.moveaxis(array, 0, -1)
        if moved.shape[-1] in CHANNELS:
            return moved
    layout = "" if input_data_format is None else f" with {input_data_format}"
    raise ImageError(f"image array has shape {array.shape}{layout}, expected (h, w), (h, w, 3|4) or (3|4, h, w)")
