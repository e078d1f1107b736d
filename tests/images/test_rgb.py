"""Pictures of any mode in RGB."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from pictures import encoded, peer, picture_of_mode, rgb
from PIL import Image

from minclip.images import ImageProcessor

PHOTOGRAPHS = Path(skimage.data.__file__).parent


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_8_bit_mode_becomes_the_peers_rgb(mode):
    picture = picture_of_mode(mode)
    fields = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    np.testing.assert_array_equal(ImageProcessor()(picture, **fields), peer(picture, **fields))


@pytest.mark.parametrize(("plain", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_premultiplied_alpha_means_the_same_as_plain(plain, premultiplied):
    picture = picture_of_mode(plain)
    difference = rgb(picture.convert(premultiplied)).astype(int) - rgb(picture)
    assert np.abs(difference).max() <= 1  # premultiplying rounds


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(kind):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 8, 4))
    pixels = rgb(encoded(picture, kind, transparency=0))
    assert (pixels[:4] == 255).all()
    assert (pixels[4:] == (0, 0, 255)).all()


def test_transparency_lies_over_white():
    clear, half, full = (rgb(np.full((2, 2, 4), (0, 0, 0, alpha), dtype=np.uint8))[0, 0, 0] for alpha in (0, 128, 255))
    assert (clear, half, full) == (255, 127, 0)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_16_bit_grey_keeps_its_range(mode):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    kind = {"I": np.dtype("i4"), "I;16B": np.dtype(">u2")}.get(mode, np.dtype("<u2"))
    picture = Image.frombytes(mode, (256, 256), levels.astype(kind).tobytes())
    np.testing.assert_array_equal(rgb(picture), np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=-1))


def test_a_16_bit_png_of_an_8_bit_photograph_is_that_photograph():
    photograph = np.asarray(Image.open(PHOTOGRAPHS / "camera.png"))
    deep = Image.fromarray(photograph.astype(np.uint16) * 257)
    np.testing.assert_array_equal(rgb(encoded(deep)), rgb(photograph))


LEVELS = (np.arange(64 * 64, dtype=np.uint16) % 4096).reshape(64, 64)  # all of 12 bits


def tiff_of_12_bits(levels):
    """A TIFF with two levels in three bytes, as scanners of film write them."""
    pairs = levels.reshape(-1, 2).astype(np.uint32)
    words = pairs[:, 0] << 12 | pairs[:, 1]
    data = np.stack([words >> 16, words >> 8 & 255, words & 255], axis=1).astype(np.uint8).tobytes()
    height, width = levels.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def tiff_of_words(levels, top):
    """A TIFF of 16-bit words that gives `top` as its MaxSampleValue."""
    tags = {281: top} if top is not None else {}
    return encoded(Image.fromarray(levels), "TIFF", tiffinfo=tags).getvalue()


def test_12_bit_grey_keeps_its_upper_8_bits():
    expected = np.repeat((LEVELS >> 4).astype(np.uint8)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(rgb(tiff_of_12_bits(LEVELS)), expected)
    np.testing.assert_array_equal(rgb(tiff_of_words(LEVELS, 4095)), expected)


@pytest.mark.parametrize("top", [None, 65535, 3999, 255, 0])
def test_a_highest_level_that_is_no_range_leaves_16_bits(top):
    np.testing.assert_array_equal(rgb(tiff_of_words(LEVELS, top))[..., 0], LEVELS >> 8)


def test_levels_beyond_the_range_that_a_tag_gives_do_not_wrap():
    levels = LEVELS * 8  # up to 32760: 15 bits
    np.testing.assert_array_equal(rgb(tiff_of_words(levels, 4095))[..., 0], levels >> 7)


@pytest.mark.parametrize(("bits", "shift"), [(12, 4), (16, 8)])
def test_a_pgm_of_any_depth_runs_to_white(bits, shift):
    levels = np.arange(1 << bits, dtype=">u2")
    content = b"P5 %d 1 %d\n" % (levels.size, levels.size - 1) + levels.tobytes()
    np.testing.assert_array_equal(rgb(content)[0, :, 0], levels >> shift)


def png(bits, colour_type, width, row, transparent):
    """A PNG of one row of packed samples and a transparent colour, each number of it in 16 bits."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, 1, bits, colour_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_grey_is_white_at_every_depth(bits):
    count = min(1 << bits, 256)
    levels = np.arange(count) * ((1 << bits) // count)
    row = (
        levels.astype(">u2").tobytes()
        if bits == 16
        else np.packbits(levels.astype(np.uint8)[:, None] >> np.arange(bits)[::-1] & 1).tobytes()
    )
    opaque = np.round(levels * (255 / ((1 << min(bits, 8)) - 1) / (1 << max(bits - 8, 0)))).astype(int)
    for transparent in (0, count // 2, count - 1):
        expected = np.where(np.arange(count) == transparent, 255, opaque)
        content = png(bits, 0, count, row, [int(levels[transparent])])
        np.testing.assert_array_equal(rgb(content)[0, :, 0], expected)
        np.testing.assert_array_equal(rgb(Image.open(io.BytesIO(content)))[0, :, 0], expected)


def test_the_transparent_colour_of_16_bits_is_white():
    row = struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0x3400, 0x7800, 0xBC00)
    np.testing.assert_array_equal(rgb(png(16, 2, 2, row, (0x1234, 0x5678, 0x9ABC)))[0], [[255] * 3, [0x34, 0x78, 0xBC]])
