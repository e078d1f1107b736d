"""The center crop against Transformers' and torchvision's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import arrays, refusal, small
from transformers.image_transforms import center_crop as peer_center_crop

from minclip.images import ImageProcessor, center_crop, check_affordable
from minclip.images.crop import crop_start


@given(arrays(small, small), small, small)
@settings(deadline=None, max_examples=300)
def test_the_center_crop_is_the_peers(array, height, width):
    expected = peer_center_crop(array, (height, width), input_data_format="channels_last")
    np.testing.assert_array_equal(center_crop(array, (height, width)), expected)


def torchvision_crop(array, height, width):
    """The rule of torchvision's CenterCrop, written out: pad the axes that are too short, then cut."""
    missing = [max(out - edge, 0) for out, edge in zip((height, width), array.shape[:2], strict=True)]
    array = np.pad(array, [(n // 2, (n + 1) // 2) for n in missing] + [(0, 0)])
    top = round((array.shape[0] - height) / 2.0)
    left = round((array.shape[1] - width) / 2.0)
    return array[top : top + height, left : left + width]


@given(arrays(small, small), small, small)
@settings(deadline=None, max_examples=300)
def test_half_even_is_torchvisions_rule(array, height, width):
    expected = torchvision_crop(array, height, width)
    np.testing.assert_array_equal(center_crop(array, (height, width), "half_even"), expected)


@given(st.integers(1, 500), st.integers(1, 500))
def test_the_two_rules_part_by_a_pixel_where_the_leftover_is_odd(edge, out):
    difference = crop_start(edge, out, "half_even") - crop_start(edge, out, "floor")
    leftover = edge - out
    assert difference == (leftover % 4 == 3 if leftover > 0 else leftover % 2)


def test_the_rule_is_followed_by_the_processor_and_left_alone_by_default():
    array = np.random.default_rng(0).integers(0, 256, (35, 32, 3), dtype=np.uint8)  # leftover 3
    steps = {"do_resize": False, "crop_size": 32}
    np.testing.assert_array_equal(ImageProcessor(**steps).pixels(array), array[1:33])
    np.testing.assert_array_equal(ImageProcessor(**steps, crop_rounding="half_even").pixels(array), array[2:34])


def test_what_would_be_too_large_is_refused_by_its_size():
    check_affordable(10_000, 10_000, "a.png: resizing 1x1")
    refusal(lambda: check_affordable(224, 4_000_000, "a.png: resizing 1x4000000"), "a.png", "4000000x224")
