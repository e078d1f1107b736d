"""What an image source may be, and what is said where it is none."""

import contextlib
import io
import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import NOISE, encoded, refusal, rgb
from PIL import EpsImagePlugin, Image, ImageOps

from minclip.errors import ImageError
from minclip.images import ImageProcessor, image_suffixes, open_image


def test_every_kind_of_source_gives_the_same_picture(tmp_path):
    path = tmp_path / "noise.png"
    Image.fromarray(NOISE).save(path)
    with open(path, "rb") as file:
        sources = [
            path,
            str(path),
            file,
            io.BytesIO(path.read_bytes()),
            Image.open(path),
            NOISE,
            NOISE.transpose(2, 0, 1),
        ]
        for source in sources:
            np.testing.assert_array_equal(rgb(source), NOISE)
        assert not file.closed


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_files_are_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(NOISE), kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    np.testing.assert_array_equal(rgb(file), expected)
    assert expected.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))


def test_broken_exif_does_not_spoil_a_sound_picture():
    file = encoded(Image.fromarray(NOISE), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff" + b"\xff" * 40)
    plain = encoded(Image.fromarray(NOISE), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(rgb(file), rgb(plain))


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (rgb(file) == (255, 0, 0)).all()


def test_a_missing_file_is_named(tmp_path):
    refusal(lambda: open_image(tmp_path / "cat.jpg"), tmp_path / "cat.jpg", "No such file")


def test_a_folder_is_named(tmp_path):
    refusal(lambda: open_image(tmp_path), tmp_path, "irectory")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)
    refusal(lambda: open_image(path), path)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused_and_never_half_a_picture(tmp_path, kind):
    whole = encoded(Image.fromarray(NOISE), kind).getvalue()
    expected = rgb(io.BytesIO(whole))
    path = tmp_path / "cat"
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            pixels = rgb(path)
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017 - a cut of the trailer alone may pass
            refused += 1
        else:
            np.testing.assert_array_equal(pixels, expected)
    assert refused > 50


@given(st.data(), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
@settings(deadline=None, max_examples=150)
def test_damaged_files_raise_nothing_but_image_errors(data, kind):
    content = bytearray(encoded(Image.fromarray(NOISE), kind).getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings(), contextlib.suppress(ImageError):
        warnings.simplefilter("ignore")
        assert rgb(io.BytesIO(bytes(content))).ndim == 3


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.png"
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e")
    refusal(lambda: open_image(path), path, "400000000 pixels", "MAX_IMAGE_PIXELS")


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_files_are_closed_also_when_they_are_damaged(tmp_path, kind, share):
    path = tmp_path / "noise"
    content = encoded(Image.fromarray(NOISE), kind).getvalue()
    path.write_bytes(content[: int(len(content) * share)])
    opened = []
    really_open = open

    def watched(*args, **options):
        opened.append(really_open(*args, **options))
        return opened[-1]

    with mock.patch("builtins.open", watched), contextlib.suppress(ImageError):
        open_image(path)
    assert opened
    assert all(file.closed for file in opened)


@pytest.mark.parametrize("source", [None, 3, [], object()])
def test_what_is_no_source_is_named_by_its_type(source):
    refusal(lambda: open_image(source), type(source).__name__, "path")


def test_a_text_file_object_is_told_to_be_binary():
    refusal(lambda: open_image(io.StringIO("cat")), "'rb'")


def test_an_empty_picture_is_refused():
    refusal(lambda: open_image(Image.new("RGB", (0, 5))), "0x5", "no pixels")


def test_bytes_are_the_content_of_a_file():
    content = encoded(Image.fromarray(NOISE)).getvalue()
    for source in (content, bytearray(content), memoryview(content)):
        np.testing.assert_array_equal(rgb(source), NOISE)
    refusal(lambda: open_image(b"cat.jpg"), "bytes object is not an image")


def test_a_name_of_several_lines_stays_on_one(tmp_path):
    refusal(lambda: open_image(tmp_path / "a\nb.png"), "a\\nb.png", "No such file")


class Pipe(io.RawIOBase):
    """A file object that cannot go back, and gives a few bytes at a time."""

    def __init__(self, content):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.content.readinto(memoryview(buffer)[:7])


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "ICO"])  # the first is found among the common ones
def test_a_file_object_that_cannot_seek_is_read(kind):
    content = encoded(Image.fromarray(NOISE), kind, **({"sizes": [(60, 40)]} if kind == "ICO" else {})).getvalue()
    np.testing.assert_array_equal(rgb(io.BufferedReader(Pipe(content))), rgb(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_object_is_turned_upright_once(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(Image.fromarray(NOISE), kind, exif=exif)
    expected = rgb(file)
    picture = Image.open(file)
    np.testing.assert_array_equal(rgb(picture), expected)
    np.testing.assert_array_equal(rgb(picture), expected)  # the object itself was not turned
    np.testing.assert_array_equal(rgb(ImageOps.exif_transpose(picture)), expected)
    np.testing.assert_array_equal(rgb(open_image(picture)), expected)
    if kind != "TIFF":  # Pillow turns these itself when it loads them
        assert picture.size == (60, 40)
        np.testing.assert_array_equal(rgb(Image.open(file).convert("RGB")), expected)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket.png"))
        for name in ("pipe.png", "link.png", "socket.png"):
            refusal(lambda name=name: open_image(tmp_path / name), name, "a pipe, a socket or a device")
    for device in ("/dev/zero", "/dev/null"):
        refusal(lambda device=device: open_image(device), device, "device")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\nshowpage\n%%EOF\n"


def iptc_around(content):
    """An IPTC file, which Pillow opens as whatever its content is."""

    def field(record, number, data):
        return bytes([0x1C, record, number]) + struct.pack(">H", len(data)) + data

    tags = [(3, 60, b"\x01\0"), (3, 65, b"\0"), (3, 20, b"\0\x14"), (3, 30, b"\0\x14"), (3, 120, b"\x05")]
    return b"".join(field(*tag) for tag in tags) + field(8, 10, content)


EPS_AFTER_A_HEADER = b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(EPS), 0, 0, 0, 0) + b"\0\0" + EPS


@pytest.mark.parametrize(
    "content", [EPS, EPS_AFTER_A_HEADER, iptc_around(EPS)], ids=["plain", "after a header", "in IPTC"]
)
@pytest.mark.parametrize("suffix", [".eps", ".png", ".jpg", ""])
def test_postscript_is_refused_and_ghostscript_never_started(tmp_path, monkeypatch, suffix, content):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / f"cat{suffix}"
    path.write_bytes(content)
    refusal(lambda: ImageProcessor()(path), path, "not an image")
    refusal(lambda: ImageProcessor()(path.read_bytes()), "not an image")
    assert not (tmp_path / "started").exists()
    if content == EPS:  # Pillow itself does start it: so this test can fail
        with contextlib.suppress(OSError):
            Image.open(path).load()
        assert (tmp_path / "started").exists()


def test_the_suffixes_are_those_of_what_is_decoded():
    suffixes = image_suffixes()
    assert {".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".bmp", ".ico"} <= suffixes
    assert not {".eps", ".ps", ".wmf", ".mpg", ".h5", ".iim", ".pdf", ".txt"} & suffixes


def test_formats_that_are_not_common_are_opened_in_a_process_that_has_opened_none():
    code = (
        "import io, sys; from minclip.images import open_image;"
        "print(open_image(io.BytesIO(bytes.fromhex(sys.argv[1]))).size)"
    )
    for kind in ("WEBP", "TIFF", "PNG"):
        content = encoded(Image.new("RGB", (2, 3)), kind).getvalue().hex()
        done = subprocess.run([sys.executable, "-c", code, content], capture_output=True, text=True, check=True)
        assert done.stdout == "(2, 3)\n"
