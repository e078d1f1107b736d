"""Whatever Pillow's decoders raise is an ImageError."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from minclip.errors import ImageError
from minclip.images import ImageProcessor, open_image

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


@pytest.mark.parametrize(
    "failure", [AssertionError, SyntaxError, RecursionError, MemoryError, IndexError, OverflowError, ZeroDivisionError]
)
@pytest.mark.parametrize("step", ["open", "load", "exif_transpose", "convert"])
def test_whatever_a_decoder_raises_at_any_step_is_an_image_error(monkeypatch, failure, step):
    def fail(*_, **__):
        raise failure("a\nb")

    file = io.BytesIO()
    RGB.convert("P").save(file, "TIFF" if step == "load" else "PNG", exif=EXIF)
    opened = type(Image.open(file))
    where = {"open": (Image, "open"), "load": (opened, "load"), "convert": (Image.Image, "convert")}
    where["exif_transpose"] = (__import__("PIL.ImageOps").ImageOps, "exif_transpose")
    monkeypatch.setattr(*where[step], fail)
    with pytest.raises(ImageError, match="a b"):
        ImageProcessor().pixels(file)


def test_no_damage_leaves_a_picture_object_unreadable():
    file = io.BytesIO()
    RGB.save(file, "PNG")
    with pytest.raises(ImageError):
        open_image(Image.open(io.BytesIO(file.getvalue()[:-40])))
