"""Noise as pictures, files and arrays, the peer's pixel values, and the one line of a refusal."""

import contextlib
import io
from unittest import mock

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from minclip.errors import ImageError
from minclip.images import open_image, to_rgb

edges = st.integers(1, 300)
small = st.integers(1, 60)
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@st.composite
def arrays(draw, heights=edges, widths=edges, channels=(3,)):
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return noise.integers(0, 256, (draw(heights), draw(widths), *channels), dtype=np.uint8)


@contextlib.contextmanager
def columns_first():
    """Pillow resizing in two calls of one dimension, as every version before 13 did inside one."""
    one_call = Image.Image.resize

    def resize(picture, size, resample=None, box=None, reducing_gap=None):
        return one_call(one_call(picture, (size[0], picture.height), resample), size, resample)

    with mock.patch.object(Image.Image, "resize", resize):
        yield


def peer(images, **fields):
    """Transformers' pixel_values, float32 (b, 3, h, w)."""
    with columns_first():
        return np.stack(CLIPImageProcessorPil(**fields)(images)["pixel_values"]).astype(np.float32)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def rgb(source):
    return np.asarray(to_rgb(open_image(source)))


def picture_of_mode(mode):
    """Noise in a mode of Pillow, alpha included."""
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    if mode == "PA":
        return rgba.convert("P").convert("PA")
    if mode == "LAB":
        return Image.frombytes("LAB", (30, 20), noise[..., :3].tobytes())
    return rgba.convert("RGB").convert(mode) if mode in ("HSV", "YCbCr", "CMYK", "P") else rgba.convert(mode)


def refusal(call, *culprits):
    """The one line of the ImageError that call() raises, with each culprit in it."""
    with pytest.raises(ImageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for culprit in culprits:
        assert str(culprit) in message
    return message


def triangles(seed: int, side: int = 80) -> Image.Image:
    """A drawing of twelve triangles on nothing, another one for every seed, RGBA, side x side."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        corners = [tuple(side * xy) for xy in rng.uniform(0.05, 0.95, (3, 2))]
        draw.polygon(corners, fill=tuple(rng.integers(0, 200, 3)))
    return image
