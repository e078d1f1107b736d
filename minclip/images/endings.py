"""Which files of a folder are taken for pictures."""

from __future__ import annotations

from PIL import Image

UNDECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # formats that Pillow knows, but cannot decode by itself


def picture_endings() -> set[str]:
    """The endings of the files that Pillow can decode: ".png", ..."""
    Image.init()
    decoded = Image.OPEN.keys() - UNDECODED
    return {ending for ending, kind in Image.registered_extensions().items() if kind in decoded}
