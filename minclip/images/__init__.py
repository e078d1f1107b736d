"""From an image source to `pixel_values`: opening, resizing, cropping, normalizing."""

from minclip.images.image import ImageProcessor as ImageProcessor
from minclip.images.image import ImageSource as ImageSource
from minclip.images.image import check_same_size as check_same_size
from minclip.images.image import is_batch as is_batch
from minclip.images.image import open_image as open_image
from minclip.images.image import stack as stack
