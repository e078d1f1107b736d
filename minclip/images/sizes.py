"""How large a picture may become, and pixels of one size as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from minclip.errors import ImageError


def check_affordable(height: int, width: int, what: str) -> None:
    """Raises ImageError where a picture would be made of more pixels than Pillow would open.

    A strip of 1 x 30000 pixels, resized to a short edge of 224, would fill gigabytes.
    what: the picture and what is done to it, such as "cat.png: resizing 1x30000".
    """
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > 2 * limit:
        raise ImageError(
            f"{what} to {width}x{height} exceeds {2 * limit} pixels; crop it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def check_same_size(shapes: Sequence[Sequence[int]]) -> None:
    """Raises ImageError where the pixels (h, w, c) of one batch differ in size."""
    if len(sizes := {tuple(shape[:2]) for shape in shapes}) > 1:
        found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes)[:5])
        raise ImageError(f"images differ in size (height x width: {found}); turn do_resize and do_center_crop on")


def stack(pixels: Sequence[np.ndarray]) -> np.ndarray:
    """Pixels (h, w, 3) of one size as one array (b, h, w, 3). Raises ImageError where they differ in size."""
    check_same_size([row.shape for row in pixels])
    return np.stack(pixels)
