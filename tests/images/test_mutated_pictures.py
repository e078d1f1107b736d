"""Damaged picture files of every format that Pillow writes: pixels or one ImageError, in bounded time and memory."""

import contextlib
import io
import os
import signal
import struct
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from minclip.errors import ImageError
from minclip.images import ImageProcessor, open_image

SHORT, LONG = 25, 1000  # mutations of each file: the long run makes more than 30,000
SECONDS = 5.0  # for one file
PIXELS = 250_000  # Pillow's limit meanwhile, so that a header of honest size asks for little memory
MEGABYTES = 150  # beyond what was in use before
PEAK = Path("/proc/self/clear_refs")  # writing 5 makes the kernel measure the highest use of memory anew

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


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes of the kinds that break decoders."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        # Most of what can be broken lies in the header, the rest is pixels.
        top = len(data) if rng.random() < 0.4 else min(len(data), 128)
        at = int(rng.integers(0, max(1, top)))
        match rng.integers(0, 9):
            case 0:
                data[at : at + 1] = bytes([rng.integers(256)])
            case 1:
                data[at : at + 1] = bytes([data[at] ^ (1 << rng.integers(8))]) if data else b""
            case 2:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x01"])
            case 3:
                data[at : at + 2] = rng.choice([b"\xff\xff", b"\x80\x00", b"\x00\x80", b"\0\0", b"\x01\0"])
            case 4:
                del data[at:]
            case 5:
                del data[at : at + int(rng.integers(1, 16))]
            case 6:
                data[at:at] = data[at : at + int(rng.integers(1, 64))] * int(rng.integers(1, 9))
            case 7:
                data[at:at] = rng.bytes(int(rng.integers(1, 16)))
            case 8:
                data[at:] = other[at:]
    return with_checksums(data) if rng.random() < 0.7 else bytes(data)


def with_checksums(data: bytearray) -> bytes:
    """The chunks of a PNG with the checksums that they should have, so that damage gets past them."""
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 <= len(data):
            data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(data)


class TooSlow(BaseException):
    """Not an Exception, so that nothing on the way up takes it for a decoder's."""


@contextlib.contextmanager
def time_limit():
    def stop(number, frame):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def megabytes(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def outcome(content: bytes, processor: ImageProcessor) -> str:
    """ "pixels" or "refused"; anything else is a broken claim."""
    try:
        with time_limit():
            pixels = processor.pixels(content)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert str(error).strip()  # noqa: PT017
        return "refused"
    assert pixels.dtype == np.uint8
    assert pixels.shape == (16, 16, 3)
    return "pixels"


def attack(kind: str, count: int, seed: int) -> Counter[str]:
    """Mutate one file `count` times and hold each to the claim; what came of them."""
    rng = np.random.default_rng(seed)
    processor, found = ImageProcessor(size=16, crop_size=16), Counter()
    others = list(FILES.values())
    measured = PEAK.exists() and os.access(PEAK, os.W_OK)
    if measured:
        PEAK.write_text("5")
        before = megabytes("VmRSS")
    for _ in range(count):
        content = mutated(FILES[kind], others[rng.integers(len(others))], rng)
        try:
            found[outcome(content, processor)] += 1
        except BaseException as error:
            error.add_note(f"a mutated {kind}: {content!r}")
            raise
    if measured:
        assert megabytes("VmHWM") - before < MEGABYTES
    return found


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("kind", FILES)
def test_a_sound_file_is_opened(kind):
    if kind == "SPIDER":  # floats without a range
        with pytest.raises(ImageError, match="mode F"):
            ImageProcessor().pixels(FILES[kind])
    else:
        assert outcome(FILES[kind], ImageProcessor(size=16, crop_size=16)) == "pixels"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here to end what hangs")
@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_gives_pixels_or_one_line(kind):
    assert attack(kind, SHORT, seed=0).total() == SHORT


@pytest.mark.long
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here to end what hangs")
@pytest.mark.parametrize("kind", FILES)
def test_many_damaged_files_give_pixels_or_one_line(kind):
    found = attack(kind, LONG, seed=int(time.time()))
    assert found["refused"] > LONG // 10
    print(f"{kind}: {dict(found)}")


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer here to end what hangs")
def test_the_time_limit_of_these_tests_ends_what_hangs(monkeypatch):
    monkeypatch.setattr("test_mutated_pictures.SECONDS", 0.05)
    monkeypatch.setattr(Image, "open", lambda *_, **__: time.sleep(30))
    with pytest.raises(TooSlow):
        outcome(b"", ImageProcessor())


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


@pytest.mark.skipif(not os.access(PEAK, os.W_OK), reason="the kernel here does not measure the highest use of memory")
def test_the_memory_limit_of_these_tests_finds_what_grows(monkeypatch):
    monkeypatch.setattr(
        "test_mutated_pictures.outcome", lambda *_: len(np.ones((MEGABYTES + 50, 1 << 17))) and "pixels"
    )
    with pytest.raises(AssertionError):
        attack("PNG", 1, seed=0)


def test_no_damage_leaves_a_picture_object_unreadable():
    file = io.BytesIO(FILES["PNG"][:-40])
    with pytest.raises(ImageError):
        open_image(Image.open(file))
