"""JPEG files decoded at a part of their size: never smaller than needed, the same picture, and no other file."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import NOISE, encoded, refusal
from PIL import Image, ImageOps

import minclip
from minclip.images import ImageProcessor, open_image
from minclip.images.resize import resized_size

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "grocery"
KINDS = {
    "colour": {},
    "full chroma": {"subsampling": 0},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "four inks": {"mode": "CMYK"},
    "several in one file": {"format": "MPO"},
}
sizes = st.integers(1, 90).map(lambda edge: {"shortest_edge": edge}) | st.fixed_dictionaries(
    {"height": st.integers(1, 90), "width": st.integers(1, 90)}
)
draft = ImageProcessor(size={"height": 40, "width": 60}, do_center_crop=False, draft=True)
exact = draft.replace(draft=False)


def scene(width: int = 333, height: int = 250) -> Image.Image:
    """A soft picture with another colour in each corner, as photographs are and noise is not."""
    corners = Image.fromarray(np.array([[[250, 30, 20], [20, 200, 40]], [[30, 40, 240], [230, 220, 60]]], np.uint8))
    return corners.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(picture: Image.Image, *, orientation: int = 1, mode: str = "RGB", format: str = "JPEG", **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if format == "MPO":
        options |= {"save_all": True, "append_images": [Image.new(mode, (8, 8))]}
    return encoded(picture.convert(mode), format, exif=exif, quality=95, **options).getvalue()


@given(st.integers(1, 700), st.integers(1, 700), sizes, st.integers(1, 8))
def test_the_smallest_scale_is_taken_that_is_not_below_what_is_needed(
    width: int, height: int, size: dict[str, int], orientation: int
) -> None:
    processor = ImageProcessor(size=size, draft=True)
    picture = processor.picture(jpeg(Image.new("RGB", (width, height)), orientation=orientation, format="JPEG"))
    if orientation > 4:
        width, height = height, width
    needed_height, needed_width = resized_size(processor.size, height, width)
    scale = next(s for s in (1, 2, 4, 8) if picture.size == (-(-width // s), -(-height // s)))
    assert scale == 1 or (picture.width >= needed_width and picture.height >= needed_height)
    assert scale == 8 or width < 2 * scale * needed_width or height < 2 * scale * needed_height
    assert processor.pixels(jpeg(Image.new("RGB", (width, height)))).shape == (224, 224, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_same_picture_and_upright(kind: str, orientation: int) -> None:
    content = jpeg(scene(), orientation=orientation, **KINDS[kind])
    shrunk, full = draft.picture(content), exact.picture(content)
    assert max(shrunk.size) <= max(full.size) / 2 + 1
    assert (shrunk.width > shrunk.height) == (full.width > full.height) == (orientation < 5)
    difference = np.abs(draft.pixels(content).astype(int) - exact.pixels(content))
    assert difference.mean() < 2  # a quarter of 333 pixels is 84: the colours are stretched by less than a pixel
    assert difference.max() < 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM"])
def test_other_formats_are_decoded_as_ever(kind: str) -> None:
    content = encoded(scene(), kind).getvalue()
    np.testing.assert_array_equal(draft.pixels(content), exact.pixels(content))


def test_pictures_that_are_there_already_are_used_as_they_are() -> None:
    content = jpeg(scene())
    opened = Image.open(io.BytesIO(content))
    for source in (opened, np.asarray(opened)):
        np.testing.assert_array_equal(draft.pixels(source), exact.pixels(content))
    assert opened.size == scene().size


def test_what_is_not_resized_is_decoded_in_full() -> None:
    processor = ImageProcessor(do_resize=False, crop_size=20, draft=True)
    content = jpeg(scene())
    np.testing.assert_array_equal(processor.pixels(content), processor.replace(draft=False).pixels(content))


@pytest.mark.parametrize("source", ["path", "file object", "bytes"])
def test_every_source_of_a_file_is_drafted(source: str, tmp_path: Path) -> None:
    path = tmp_path / "scene.jpg"
    path.write_bytes(jpeg(scene()))
    given = {"path": path, "file object": io.BytesIO(path.read_bytes()), "bytes": path.read_bytes()}[source]
    assert draft.picture(given).size == (84, 63)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    content = jpeg(Image.fromarray(NOISE).resize((400, 400)))
    for length in (20, len(content) // 2):
        path.write_bytes(content[:length])
        refusal(lambda: draft.picture(path), path)


def test_broken_exif_does_not_spoil_a_sound_picture() -> None:
    broken = b"Exif\x00\x00MM\x00*\x00\x00\xff\xff" + b"\xff" * 40
    content = encoded(scene(), "JPEG", exif=broken, quality=95).getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(draft.pixels(content), draft.pixels(jpeg(scene())))


def test_it_is_off_unless_asked_for() -> None:
    assert not ImageProcessor().draft
    assert "draft" not in ImageProcessor().to_dict()
    assert ImageProcessor.from_dict(draft.to_dict()) == draft
    content = jpeg(scene())
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    np.testing.assert_array_equal(np.asarray(open_image(content)), np.asarray(expected))


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="the photographs are not on this machine")
@pytest.mark.parametrize("name", ["mini-clip", "mini-metaclip-2"])
def test_embeddings_of_photographs_stay_what_they_were(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    photographs = sorted((PHOTOGRAPHS / "val").rglob("*.jpg"))[::8]
    model = minclip.load(name)
    full, shrunk = model.encode_image(photographs), model.encode_image(photographs, draft=True)
    cosines = (full * shrunk).sum(axis=1)
    assert (cosines < 1 - 1e-6).all()  # they are drafted: 192 pixels to 96
    assert cosines.mean() > 0.9997
    assert cosines.min() > 0.998
    assert ((shrunk @ full.T).argmax(axis=1) == np.arange(len(full))).all()
