"""From an image source (a path, a URL, bytes, a file object, a PIL.Image, an array) to a picture."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, TypeAlias, cast

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from minclip.errors import ImageError
from minclip.files import one_line
from minclip.images.arrays import array_picture, is_array, to_array
from minclip.images.rgb import scale_transparent_colour


class Array(Protocol):
    """What NumPy can read: a tensor of some framework."""

    def __array__(self, dtype: Any = None) -> np.ndarray: ...


ImageSource: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | np.ndarray | Array
)
Needed: TypeAlias = Callable[[int, int], tuple[int, int]]  # of a picture's height and width, those it is resized to

COMMON = ("PNG", "JPEG", "GIF", "BMP", "PPM")  # tried first: the other plugins of Pillow need not be imported then
JPEG = ("JPEG", "MPO")  # MPO, which many telephones write: JPEG files one after the other, the picture first
TURNED = range(5, 9)  # EXIF orientations that swap width and height
# Formats that Pillow hands to another program (Ghostscript for EPS) or to a plugin that is not there, and IPTC, whose
# content may be any of these.
NOT_DECODED = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})


def is_batch(images: Any) -> bool:
    """Whether `images` are several: a list, a tuple, or an array (b, ...) of four axes. One image source is not."""
    return isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4


def image_suffixes() -> frozenset[str]:
    """The file suffixes, such as ".png", of the formats that are decoded here."""
    Image.init()
    decoded = Image.OPEN.keys() - NOT_DECODED
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in decoded)


def open_image(source: ImageSource, input_data_format: str | None = None, needed: Needed | None = None) -> Image.Image:
    """The picture in an image source, decoded, upright by its EXIF orientation, in its own mode.

    A str that begins with http:// or https:// is fetched (`minclip.images.url`); bytes are the content of a file. Of an
    animation the first frame is taken. Files are closed, file objects left open; a PIL.Image is loaded, but not turned
    itself. Arrays, and `input_data_format`: see `array_picture`. needed: lets a JPEG file be decoded at a part of its
    size, see `draft`.
    Raises ImageError for what is missing, not a regular file, no image, damaged, or larger than Pillow's limit.
    """
    name = name_of(source)
    if isinstance(source, Image.Image):
        return upright(loaded(source, name), name)
    if isinstance(source, str) and is_url(source):
        from minclip.images.url import fetch  # the network's modules, for those who name a URL

        return decode(io.BytesIO(fetch(source)), name, needed)
    if isinstance(source, str | os.PathLike):
        with open_file(source, name) as file:
            return decode(file, name, needed)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(io.BytesIO(source), name, needed)
    if isinstance(source, io.TextIOBase):
        raise ImageError(f"{name} is open as text; open it with mode 'rb'")
    if is_array(source):
        return array_picture(to_array(source), input_data_format)
    if hasattr(source, "read"):
        return decode(cast(IO[bytes], source), name, needed)
    raise ImageError(
        "an image must be a path, a URL, bytes, a binary file object, a PIL.Image or an array, "
        f"not {type(source).__name__}"
    )


def name_of(source: Any) -> str:
    """What errors call an image source, on one line: its path or URL where there is one."""
    if not isinstance(source, str | os.PathLike):
        named = getattr(source, "name", "") or getattr(source, "filename", "")
        source = named or f"{type(source).__name__} object"
    name = str(source)
    return name if name.isprintable() else repr(name)


def is_url(source: str) -> bool:
    return source[:8].lower().startswith(("http://", "https://"))


def open_file(path: str | os.PathLike[str], name: str) -> IO[bytes]:
    """A regular file, open to be read. A pipe or a device might keep its reader waiting for ever."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"cannot open image {name}: {reason}; expected the path of an image file") from error
    kind = "a directory" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
    raise ImageError(f"cannot open image {name}: it is {kind}; expected the path of an image file")


@contextlib.contextmanager
def decoding(problem: str) -> Iterator[None]:
    """Makes whatever Pillow raises inside an ImageError that begins with `problem`.

    A decoder that is given a damaged file raises anything: AssertionError, SyntaxError, struct.error, MemoryError.
    """
    try:
        yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        advice = "Shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        raise ImageError(f"{problem}, it is too large: {one_line(error)} {advice}") from error
    except Exception as error:
        raise ImageError(f"{problem}: {one_line(error) or type(error).__name__}") from error


def decode(file: IO[bytes], name: str, needed: Needed | None = None) -> Image.Image:
    """The first picture in a binary file, all of it, upright. needed: see `draft`."""
    with decoding(f"{name} cannot be read as an image"):
        try:
            picture = identify(file)
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} is not an image, or of a format that this Pillow cannot read") from error
    return upright(loaded(picture, name, needed), name)


def identify(file: IO[bytes]) -> Image.Image:
    """Read a file's header. Refuses what has more than twice Image.MAX_IMAGE_PIXELS."""
    try:
        file.seek(0)
    except (AttributeError, OSError):  # a pipe: its content cannot be read a second time
        file = io.BytesIO(file.read())
    try:
        return Image.open(file, formats=COMMON)
    except UnidentifiedImageError:
        Image.init()
        return Image.open(file, formats=[kind for kind in Image.ID if kind not in NOT_DECODED.union(COMMON)])


def loaded(picture: Image.Image, name: str, needed: Needed | None = None) -> Image.Image:
    """The same picture, decoded and not empty. needed: see `draft`."""
    if 0 in picture.size:
        raise ImageError(f"{name} has no pixels: its size is {picture.width}x{picture.height}")
    with decoding(f"{name} is damaged, its pixels cannot be decoded"):
        scale_transparent_colour(picture)
        if needed is not None and picture.format in JPEG:
            draft(picture, needed)
        picture.load()
    return picture


def draft(picture: Image.Image, needed: Needed) -> None:
    """Have a JPEG file, not yet loaded, decoded at 1/2, 1/4 or 1/8 of its size, if that is not below what is needed.

    JPEG holds each 8x8 pixels as a sum of 64 waves (the DCT); the 4x4, 2x2 or 1x1 longest of them give the small
    picture. needed: of the upright height and width, the (height, width) that will be made of them.
    """
    width, height = picture.size
    if orientation(picture) in TURNED:
        picture.draft(None, needed(width, height))
    else:
        picture.draft(None, needed(height, width)[::-1])


def orientation(picture: Image.Image) -> int:
    """How a picture must be turned to be upright, by its EXIF data: 1 to 8, where 1 is not at all."""
    try:
        found = picture.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF gives no orientation, and the pixels are sound
        return 1
    return found if found in range(2, 9) else 1


def upright(picture: Image.Image, name: str) -> Image.Image:
    """The picture as its EXIF orientation says it is seen, without the tag, so that it is not turned twice."""
    if orientation(picture) == 1:
        return picture
    with decoding(f"{name} cannot be turned upright"):
        return ImageOps.exif_transpose(picture)
