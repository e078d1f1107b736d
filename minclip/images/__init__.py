"""Images: any source to a picture in RGB, to pixels of the size that a model takes, to its `pixel_values`.

`opening` finds the picture in a source (`arrays` and `url` are two of its kinds), `rgb` brings it to RGB, `resize` and
`crop` to its size (`sizes` sets limits); `processor` does all this as a checkpoint's preprocessor_config.json says
(`fields` checks that). `folders` finds the picture files below a folder.
"""

from minclip.images.crop import center_crop as center_crop
from minclip.images.folders import pictures_below as pictures_below
from minclip.images.opening import ImageSource as ImageSource
from minclip.images.opening import image_suffixes as image_suffixes
from minclip.images.opening import is_batch as is_batch
from minclip.images.opening import open_image as open_image
from minclip.images.processor import ImageProcessor as ImageProcessor
from minclip.images.rgb import to_rgb as to_rgb
from minclip.images.sizes import check_affordable as check_affordable
from minclip.images.sizes import check_same_size as check_same_size
from minclip.images.sizes import stack as stack
