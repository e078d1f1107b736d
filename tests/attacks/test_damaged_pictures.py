"""Picture files of every format that Pillow writes, damaged: pixels or one ImageError, in bounded time and memory."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from attack import attack, counts, needs_timer
from mutators import PICTURE, checked, ends_of, mutated
from PIL import Image, features

from minclip.errors import ImageError
from minclip.images import ImageProcessor

PIXELS = 250_000  # Pillow's limit meanwhile, so that a header of honest size asks for little memory
PROCESSOR = ImageProcessor(size=16, crop_size=16)

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
SQUARE = RGB.resize((32, 32))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def written() -> dict[str, bytes]:
    """A small file of each kind: formats, modes and compressions that are decoded by code of their own."""
    grey, clear, palette, one_bit = RGB.convert("L"), RGB.convert("RGBA"), RGB.convert("P"), RGB.convert("1")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    makers = {
        "PNG": (RGB, {"exif": EXIF}),
        "PNG interlaced palette": (palette, {"transparency": 3, "bits": 8}),
        "PNG 16 bit": (deep, {"transparency": 257}),
        "JPEG": (RGB, {"exif": EXIF}),
        "JPEG progressive": (RGB, {"progressive": True}),
        "JPEG CMYK": (RGB.convert("CMYK"), {}),
        "GIF": (palette, {"save_all": True, "append_images": [grey.convert("P")]}),
        "BMP": (RGB, {}),
        "DIB": (palette, {}),
        "TIFF": (RGB, {"exif": EXIF}),
        "TIFF LZW": (RGB, {"compression": "tiff_lzw"}),
        "TIFF JPEG": (RGB, {"compression": "jpeg"}),
        "TIFF fax": (one_bit, {"compression": "group4"}),
        "TIFF 16 bit": (deep, {}),
        "WEBP": (RGB, {"exif": EXIF}),
        "WEBP lossless": (clear, {"lossless": True}),
        "ICO": (SQUARE, {"sizes": [(16, 16), (32, 32)]}),
        "PPM": (RGB, {}),
        "PPM 16 bit": (deep, {}),
        "TGA": (clear, {"compression": "tga_rle"}),
        "PCX": (palette, {}),
        "SGI": (RGB, {}),
        "DDS": (clear, {}),
        "IM": (RGB, {}),
        "MSP": (one_bit, {}),
        "XBM": (one_bit, {}),
        "BLP": (palette, {}),
        "QOI": (RGB, {}),
        "SPIDER": (grey.convert("F"), {}),
        "JPEG2000": (RGB, {}),
        "AVIF": (RGB, {}),
    }
    Image.init()
    files = {}
    for kind, (picture, options) in makers.items():
        name = kind.split(" ")[0]
        if name not in Image.SAVE or (name == "AVIF" and not features.check("avif")):
            continue
        file = io.BytesIO()
        with contextlib.suppress(OSError), warnings.catch_warnings():  # a codec that this Pillow was built without
            warnings.simplefilter("ignore", DeprecationWarning)
            picture.save(file, name, **options)
            files[kind] = file.getvalue()
    square = io.BytesIO()
    SQUARE.save(square, "PNG")
    planes = np.asarray(SQUARE).transpose(2, 0, 1).tobytes()
    files["ICNS of a PNG"] = icns(icp5=square.getvalue(), s8mk=bytes(256))
    files["ICNS of planes"] = icns(il32=planes, l8mk=bytes(range(256)) * 4)  # Pillow writes none, nor any this small
    return files


def icns(**blocks: bytes) -> bytes:
    """An icon file of Apple's: blocks, each under a name of four letters and its length."""
    content = b"".join(name.encode() + struct.pack(">I", len(data) + 8) + data for name, data in blocks.items())
    return b"icns" + struct.pack(">I", len(content) + 8) + content


FILES = written()
OTHER_ENDS = ends_of(list(FILES.values()))
DAMAGE = [*PICTURE, OTHER_ENDS, checked(OTHER_ENDS)]


@pytest.fixture(autouse=True)
def small_limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def use(content: bytes) -> None:
    pixels = PROCESSOR.pixels(content)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("kind", FILES)
def test_a_sound_file_is_opened(kind: str) -> None:
    if kind == "SPIDER":  # floats without a range
        with pytest.raises(ImageError, match="mode F"):
            use(FILES[kind])
    else:
        use(FILES[kind])


@needs_timer
@counts(25, 500)
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_gives_pixels_or_one_line(kind: str, count: int) -> None:
    rng = random.Random(f"{kind} {count}")
    found = attack(use, (mutated(FILES[kind], DAMAGE, rng) for _ in range(count)), ImageError)
    print(f"{kind}: {found}")
    assert found.total() == count
    assert found["refused"] > count // 10
