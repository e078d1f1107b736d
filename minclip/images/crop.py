"""The middle of a picture, by either of the two rules that checkpoints were trained with."""

from __future__ import annotations

import numpy as np

ROUNDINGS = ("floor", "half_even")


def crop_start(edge: int, out_edge: int, rounding: str = "floor") -> int:
    """Where the middle `out_edge` pixels of an edge begin; negative where the edge is too short and is padded.

    "floor": half the difference, rounded down, as Transformers does. "half_even": as torchvision does, with which
    OpenAI's and open_clip's models were trained: half of what is left over is rounded to even, and padding puts the
    smaller half first.
    """
    if rounding == "floor":
        return (edge - out_edge) // 2
    return round((edge - out_edge) / 2) if edge >= out_edge else -((out_edge - edge) // 2)


def center_crop(pixels: np.ndarray, size: tuple[int, int], rounding: str = "floor") -> np.ndarray:
    """The middle of (h, w, c), as (*size, c); zeros around it where it is too small. rounding: see `crop_start`."""
    (height, width), (out_height, out_width) = pixels.shape[:2], size
    top, left = crop_start(height, out_height, rounding), crop_start(width, out_width, rounding)
    inside = pixels[max(top, 0) : top + out_height, max(left, 0) : left + out_width]
    if inside.shape[:2] == size:
        return inside
    padded = np.zeros((*size, pixels.shape[2]), dtype=pixels.dtype)
    y, x = max(-top, 0), max(-left, 0)
    padded[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return padded
