"""A picture of any mode in RGB, as one sees it: transparency over white, deep grey in 8 bits."""

from __future__ import annotations

import numpy as np
from PIL import Image

from minclip.errors import ImageError

MAX_SAMPLE_VALUE, BITS_PER_SAMPLE = 281, 258  # tags of TIFF


def to_rgb(picture: Image.Image, name: str = "picture") -> Image.Image:
    """The picture in RGB. name: what an error calls it.

    Transparency is laid over white, as Transformers does in version 5; older ones and the training code dropped the
    alpha channel, which brings to light whatever colour hid there. Grey of more than 8 bits, mode I included, keeps its
    upper 8, as Pillow does for 16-bit colour; Pillow's own conversion of grey turns all above level 255 white.
    Raises ImageError for mode F, whose range is unknown, and for a mode I picture beyond 16 bits.
    """
    if picture.mode == "F":
        raise ImageError(f"{name} is of mode F, which has no defined range; scale it to 0..255 and pass it as uint8")
    if picture.mode.startswith("I"):
        picture = eight_bit_grey(picture, name)
    if picture.mode == "La":  # premultiplied; Pillow converts it to nothing but LA
        picture = picture.convert("LA")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def eight_bit_grey(picture: Image.Image, name: str) -> Image.Image:
    """The upper 8 bits of a deep grey picture, with its transparent level, if any, laid over white."""
    grey = np.asarray(picture)  # (h, w)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        found = f"mode {picture.mode} from {grey.min()} to {grey.max()}"
        raise ImageError(f"{name} is of {found}, expected 0..65535; scale it to 0..255 and pass it as uint8")
    pixels = (grey >> (grey_bits(picture, int(grey.max())) - 8)).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        pixels[grey == transparent] = 255
    return Image.fromarray(pixels)


def grey_bits(picture: Image.Image, highest: int) -> int:
    """How many bits a level of this picture has: 16, or what the tags of its TIFF file say. highest: its top level.

    Cameras and microscopes store 12 bits as such (BitsPerSample 12), or in words of 16 bits with a MaxSampleValue of
    4095. Other writers put the highest level that occurs into MaxSampleValue, which says nothing of the range: so it
    counts only where it is 2^n - 1.
    """
    tags = getattr(picture, "tag_v2", {})
    stored, top = (_whole(tags.get(tag)) for tag in (BITS_PER_SAMPLE, MAX_SAMPLE_VALUE))
    bits = stored if stored is not None and 8 < stored < 16 else 16
    if top is not None and 0xFF < top < 0xFFFF and top & (top + 1) == 0:
        bits = min(bits, top.bit_length())
    return max(bits, highest.bit_length())


def _whole(value: object) -> int | None:
    """The value of a tag of one whole number, or of several that are equal."""
    values = set(value) if isinstance(value, tuple) else {value}
    found = values.pop() if len(values) == 1 else None
    return found if isinstance(found, int) else None


def scale_transparent_colour(picture: Image.Image) -> None:
    """Bring the transparent colour of a PNG file, not yet loaded, to the scale that its pixels are decoded to.

    The file counts it in its own bits. Pillow widens grey of 2 and 4 bits to 8 and narrows colours of 16 bits to 8, but
    leaves the transparent one as it stands, so that it would match other pixels or none.
    """
    transparent = picture.info.get("transparency")
    tile = getattr(picture, "tile", None)
    raw_mode = tile[0][3] if picture.format == "PNG" and tile else None
    if isinstance(transparent, int) and raw_mode in ("L;2", "L;4"):
        picture.info["transparency"] = transparent * (85 if raw_mode == "L;2" else 17)
    elif isinstance(transparent, tuple) and raw_mode == "RGB;16B":
        picture.info["transparency"] = tuple(level >> 8 for level in transparent)
