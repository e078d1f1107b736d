"""Images: any source to a picture in RGB, to pixels of the size that a model takes, to its `pixel_values`.

`opening` finds the picture in a source (`arrays` and `url` are two of its kinds), `rgb` brings it to RGB, `resize` and
`crop` to its size; `processor` does all this as a checkpoint's preprocessor_config.json says (`fields` checks that).
"""

from minclip.images.crop import center_crop, check_affordable, check_same_size
from minclip.images.opening import ImageSource, image_suffixes, is_batch, open_image
from minclip.images.processor import ImageProcessor
from minclip.images.rgb import to_rgb

__all__ = [
    "ImageProcessor",
    "ImageSource",
    "center_crop",
    "check_affordable",
    "check_same_size",
    "image_suffixes",
    "is_batch",
    "open_image",
    "to_rgb",
]
