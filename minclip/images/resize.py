"""The resize of the CLIP family: separable, antialiased, in 8-bit fixed point, the horizontal pass first.

`resize` is the definition, in NumPy. `resize_picture` is the fast way to the same bytes, through Pillow.

The models were trained on pixels that Pillow resized, and Pillow's arithmetic is part of what they saw: weights are
rounded to 22 fractional bits, and the picture is rounded to 8 bits between the two passes. Because of that rounding
the order of the passes matters. Pillow went horizontally first for a decade; since version 13 it goes vertically first
where the height shrinks much more than the width, which changes pixels, mostly by one level. Here the order is fixed:
the same picture gives the same embedding, whatever Pillow is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

# 32 bits, less 8 for the pixel and 2 for the sign and for filters whose weights add up to more than 1 in magnitude:
# a sum of weight * pixel never overflows int32 (tests/images/test_resize.py bounds it).
FRACTION_BITS = 22


def box(x: np.ndarray) -> np.ndarray:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def hamming(x: np.ndarray) -> np.ndarray:
    """A sinc under a Hamming window, one lobe.

    The window's constants are single-precision in Pillow, add up to a little more than 1, and are passed by at 0.
    """
    window = float(np.float32(0.54)) + float(np.float32(0.46)) * np.cos(x * np.pi)
    return np.where(x == 0.0, 1.0, np.where(np.abs(x) < 1.0, sinc(x) * window, 0.0))


def cubic(x: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution (Keys 1981, eq. 4) with a = -0.5."""
    a, x = -0.5, np.abs(x)
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    outer = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, inner, np.where(x < 2.0, outer, 0.0))


def lanczos(x: np.ndarray) -> np.ndarray:
    """A sinc under the middle lobe of a wider one (Lanczos, three lobes)."""
    return np.where((x >= -3.0) & (x < 3.0), sinc(x) * sinc(x / 3), 0.0)


def sinc(x: np.ndarray) -> np.ndarray:
    angle = np.where(x == 0.0, 1.0, x * np.pi)
    return np.where(x == 0.0, 1.0, np.sin(angle) / angle)


# Number in a checkpoint's `resample` (Pillow's numbering): the filter, and how far it reaches from its centre, in
# source pixels (output pixels where the picture shrinks). Number 0, nearest, is no filter: see `nearest_bank`.
FILTERS: dict[int, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    1: (lanczos, 3.0),
    2: (triangle, 1.0),
    3: (cubic, 2.0),
    4: (box, 0.5),
    5: (hamming, 1.0),
}


def filter_bank(in_size: int, out_size: int, resample: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each output pixel looks and with which weights, for one pass from `in_size` to `out_size` pixels.

    Returns starts (out,) int64 and weights (out, taps) int32 in units of 2**-22: output pixel i is the sum over t of
    weights[i, t] * input[starts[i] + t], and every starts[i] + t lies inside the input. Rows that need fewer taps than
    the widest are filled with zeros.
    """
    if resample == 0:
        return nearest_bank(in_size, out_size)
    kernel, reach = FILTERS[resample]
    scale = in_size / out_size
    stretch = max(scale, 1.0)  # a shrinking picture widens the filter: that is the antialiasing
    support = reach * stretch
    centers = (np.arange(out_size) + 0.5) * scale  # (out,), in source pixels
    first = np.maximum(centers - support + 0.5, 0.0).astype(np.int64)
    end = np.minimum((centers + support + 0.5).astype(np.int64), in_size)
    taps = int((end - first).max())
    starts = np.minimum(first, in_size - taps)
    positions = starts[:, None] + np.arange(taps)  # (out, taps)
    weights = kernel((positions - centers[:, None] + 0.5) * (1.0 / stretch))
    weights[(positions < first[:, None]) | (positions >= end[:, None])] = 0.0
    # cumsum, for it adds from left to right as Pillow does; np.sum pairs terms and may differ in the last bit.
    weights /= np.cumsum(weights, axis=1)[:, -1:]
    fixed = np.trunc(weights * (1 << FRACTION_BITS) + np.copysign(0.5, weights))  # rounds half away from zero
    return starts, fixed.astype(np.int32)


def nearest_bank(in_size: int, out_size: int) -> tuple[np.ndarray, np.ndarray]:
    """One tap of weight 1 at the source pixel under each output pixel's centre.

    Pillow walks the centres by repeated addition; its rounding decides which of two pixels a centre on their border
    takes.
    """
    scale = in_size / out_size
    steps = np.full(out_size, scale)
    steps[0] = scale * 0.5
    starts = np.cumsum(steps).astype(np.int64)
    return starts, np.full((out_size, 1), 1 << FRACTION_BITS, dtype=np.int32)


def resize_rows(pixels: np.ndarray, out_size: int, resample: int) -> np.ndarray:
    """One pass down the first axis: uint8 (h, w, c) -> uint8 (out, w, c). The same size is left as it is."""
    height, width, channels = pixels.shape
    if height == out_size:
        return pixels
    starts, weights = filter_bank(height, out_size, resample)
    rows = np.ascontiguousarray(pixels).reshape(height, width * channels).astype(np.int32)
    sums = np.empty((out_size, width * channels), dtype=np.int32)
    for i, start in enumerate(starts):
        np.matmul(weights[i], rows[start : start + weights.shape[1]], out=sums[i])
    sums += 1 << (FRACTION_BITS - 1)  # half, so that the shift below rounds
    sums >>= FRACTION_BITS
    return sums.clip(0, 255).astype(np.uint8).reshape(out_size, width, channels)


def resize(pixels: np.ndarray, size: tuple[int, int], resample: int) -> np.ndarray:
    """The definition: uint8 (h, w, c) -> uint8 (*size, c), the columns first, then the rows.

    size: (height, width), both at least 1. resample: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic, 4 box, 5 hamming.
    Each pass equals Pillow's of one dimension, bit for bit (Pillow, src/libImaging/Resample.c and Geometry.c).
    """
    height, width = size
    columns = resize_rows(pixels.swapaxes(0, 1), width, resample)  # (width, h, c)
    return np.ascontiguousarray(resize_rows(columns.swapaxes(0, 1), height, resample))


def resized_size(size: Mapping[str, int], height: int, width: int) -> tuple[int, int]:
    """The (height, width) that a checkpoint's `size` asks for: as it stands, or in proportion to its shortest edge."""
    if "shortest_edge" not in size:
        return size["height"], size["width"]
    short = size["shortest_edge"]
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def resize_picture(picture: Image.Image, size: tuple[int, int], resample: int) -> Image.Image:
    """The fast way to the bytes of `resize`, for an RGB or L picture: two calls to Pillow, one dimension each."""
    height, width = size
    columns = picture.resize((width, picture.height), Image.Resampling(resample))
    return columns.resize((width, height), Image.Resampling(resample))
