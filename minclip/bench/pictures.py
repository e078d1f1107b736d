"""Pictures to measure on: noise as smooth as a photograph, so that their JPEG files are as large as a photograph's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (640, 480)  # width, height


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """Blurred noise with finer noise on it."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    fine = rng.normal(scale=6, size=(size[1], size[0], 3))
    return Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8))


def write_jpegs(folder: Path, count: int) -> list[Path]:
    """So many JPEG files."""
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        picture(number).save(path, quality=90)
    return paths
