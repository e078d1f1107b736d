"""The resize against Pillow, one dimension at a time: equal bytes, no tolerance."""

from pathlib import Path

import numpy as np
import PIL
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from minclip.images.resize import FILTERS, FRACTION_BITS, filter_bank, resize, resize_picture, resized_size

PILLOW = int(PIL.__version__.split(".")[0])
PHOTOGRAPHS = Path(skimage.data.__file__).parent
RESAMPLES = (0, *FILTERS)

edges = st.integers(1, 300)
resamples = st.sampled_from(RESAMPLES)


@st.composite
def pictures(draw, heights=edges, widths=edges):
    """uint8 (h, w, 3): noise, or black and white alone, where filters overshoot most."""
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = noise.integers(0, 256, (draw(heights), draw(widths), 3), dtype=np.uint8)
    return np.where(levels < 128, 0, 255).astype(np.uint8) if draw(st.booleans()) else levels


def pillow(pixels, size, resample):
    """One call to Pillow; its order of passes is its own."""
    return np.asarray(Image.fromarray(pixels).resize(size[::-1], resample))


def photograph(name):
    return np.asarray(Image.open(PHOTOGRAPHS / name).convert("RGB"))


@given(pictures(), edges, resamples)
@settings(deadline=None, max_examples=300)
def test_the_horizontal_pass_equals_pillows(pixels, width, resample):
    size = (pixels.shape[0], width)
    assert np.array_equal(resize(pixels, size, resample), pillow(pixels, size, resample))


@given(pictures(), edges, resamples)
@settings(deadline=None, max_examples=300)
def test_the_vertical_pass_equals_pillows(pixels, height, resample):
    size = (height, pixels.shape[1])
    assert np.array_equal(resize(pixels, size, resample), pillow(pixels, size, resample))


@given(pictures(), edges, edges, resamples)
@settings(deadline=None, max_examples=300)
def test_a_resize_is_the_horizontal_pass_and_then_the_vertical(pixels, height, width, resample):
    columns = pillow(pixels, (pixels.shape[0], width), resample)
    assert np.array_equal(resize(pixels, (height, width), resample), pillow(columns, (height, width), resample))


@given(pictures(), edges, edges, resamples)
@settings(deadline=None, max_examples=200)
def test_the_fast_way_equals_the_definition(pixels, height, width, resample):
    fast = np.asarray(resize_picture(Image.fromarray(pixels), (height, width), resample))
    assert np.array_equal(fast, resize(pixels, (height, width), resample))


@given(pictures(heights=st.integers(1, 3), widths=st.integers(1, 30_000)), st.integers(1, 2_000), resamples)
@settings(deadline=None, max_examples=60)
def test_long_strips_equal_pillows(pixels, width, resample):
    size = (pixels.shape[0], width)
    assert np.array_equal(resize(pixels, size, resample), pillow(pixels, size, resample))


@pytest.mark.long
@given(pictures(st.integers(1, 900), st.integers(1, 900)), st.integers(1, 900), st.integers(1, 900), resamples)
@settings(deadline=None, max_examples=10_000)
def test_any_resize_equals_pillows(pixels, height, width, resample):
    columns = pillow(pixels, (pixels.shape[0], width), resample)
    expected = pillow(columns, (height, width), resample)
    assert np.array_equal(resize(pixels, (height, width), resample), expected)
    assert np.array_equal(np.asarray(resize_picture(Image.fromarray(pixels), (height, width), resample)), expected)


def test_the_middle_of_the_hamming_filter_is_one_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (2_000, 385, 3), dtype=np.uint8)  # sees 1e-8 more at pixel 139
    assert np.array_equal(resize(pixels, (2_000, 279), 5), pillow(pixels, (2_000, 279), 5))


@pytest.mark.parametrize("resample", RESAMPLES)
@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg"])
def test_photographs_equal_pillows(name, resample):
    pixels = photograph(name)
    columns = pillow(pixels, (pixels.shape[0], 336), resample)
    assert np.array_equal(resize(pixels, (224, 336), resample), pillow(columns, (224, 336), resample))


@given(pictures(), resamples)
@settings(deadline=None, max_examples=50)
def test_the_same_size_is_the_same_picture(pixels, resample):
    assert np.array_equal(resize(pixels, pixels.shape[:2], resample), pixels)


@given(st.integers(0, 255), edges, edges, edges, edges, resamples)
@settings(deadline=None, max_examples=100)
def test_one_colour_stays_that_colour(level, height, width, out_height, out_width, resample):
    resized = resize(np.full((height, width, 3), level, dtype=np.uint8), (out_height, out_width), resample)
    assert (resized == level).all()


@given(st.integers(1, 5_000), st.integers(1, 5_000), resamples)
@settings(deadline=None, max_examples=300)
def test_no_sum_of_weighted_pixels_overflows_int32(in_size, out_size, resample):
    _, weights = filter_bank(in_size, out_size, resample)
    largest = np.abs(weights.astype(np.int64)).sum(axis=1).max() * 255 + (1 << (FRACTION_BITS - 1))
    assert largest < 2**31


@given(st.integers(1, 5_000), st.integers(1, 5_000), resamples)
@settings(deadline=None, max_examples=300)
def test_every_tap_lies_inside_the_picture(in_size, out_size, resample):
    starts, weights = filter_bank(in_size, out_size, resample)
    assert len(starts) == len(weights) == out_size
    assert starts.min() >= 0
    assert starts.max() + weights.shape[1] <= in_size


@given(st.integers(1, 5_000), st.integers(1, 5_000), resamples)
@settings(deadline=None, max_examples=300)
def test_the_weights_of_a_pixel_sum_to_one_but_for_their_rounding(in_size, out_size, resample):
    _, weights = filter_bank(in_size, out_size, resample)
    error = np.abs(weights.sum(axis=1, dtype=np.int64) - (1 << FRACTION_BITS))
    assert error.max() <= weights.shape[1] / 2 + 1


@pytest.mark.skipif(PILLOW < 13, reason="Pillow went horizontally first for every picture before version 13")
def test_tall_pictures_keep_the_pass_order_of_the_training_years():
    tall = photograph("coffee.png")[:, :120]  # 400 x 120
    ours, single_call = resize(tall, (224, 224), 3), pillow(tall, (224, 224), 3)
    rows_first = pillow(pillow(tall, (224, 120), 3), (224, 224), 3)
    assert np.array_equal(single_call, rows_first)
    difference = np.abs(ours.astype(int) - single_call)
    changed = difference[difference > 0]
    assert len(changed) > 1_000
    assert np.mean(changed == 1) > 0.9


@given(edges, st.integers(1, 400), st.integers(1, 400))
def test_the_short_edge_is_as_asked_and_the_long_edge_in_proportion(short, height, width):
    resized = resized_size({"shortest_edge": short}, height, width)
    assert min(resized) == short
    assert max(resized) == int(short * max(height, width) / min(height, width))
    assert (resized[0] <= resized[1]) == (height <= width) or resized[0] == resized[1]


def test_a_size_of_height_and_width_is_taken_as_it_stands():
    assert resized_size({"height": 30, "width": 50}, 400, 300) == (30, 50)


@pytest.mark.parametrize("resample", RESAMPLES)
def test_the_input_is_left_alone_and_may_be_a_view(resample):
    pixels = photograph("chelsea.png")
    before = pixels.copy()
    view = pixels[::2, 10:200:3, ::-1]
    assert np.array_equal(resize(view, (31, 47), resample), resize(view.copy(), (31, 47), resample))
    assert np.array_equal(pixels, before)
