"""The image processor against Transformers' Pillow one, with the order of the resize pinned."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import NOISE, arrays, edges, encoded, peer, refusal, small
from PIL import Image

from minclip.encoding import prepared
from minclip.errors import ImageError
from minclip.images import ImageProcessor, center_crop, is_batch, open_image
from minclip.images.resize import resize

PHOTOGRAPHS = Path(skimage.data.__file__).parent
NAMES = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "camera.png", "hubble_deep_field.jpg"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("resample", range(6))
def test_photographs_have_the_peers_pixel_values(name, resample):
    picture = Image.open(PHOTOGRAPHS / name)
    ours = ImageProcessor(resample=resample)(PHOTOGRAPHS / name)
    assert ours.shape == (1, 3, 224, 224)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, peer(picture, resample=resample), atol=1e-6, rtol=0)


@given(
    arrays(),
    st.one_of(
        small.map(lambda s: {"shortest_edge": s}), st.builds(lambda h, w: {"height": h, "width": w}, edges, edges)
    ),
    st.builds(lambda h, w: {"height": h, "width": w}, edges, edges),
    st.integers(0, 5),
)
@settings(deadline=None, max_examples=200)
def test_any_size_and_crop_has_the_peers_pixel_values(array, size, crop_size, resample):
    fields = {"size": size, "crop_size": crop_size, "resample": resample}
    ours = ImageProcessor(**fields)(array)
    np.testing.assert_allclose(ours, peer(Image.fromarray(array), **fields), atol=1e-6, rtol=0)


flags = st.fixed_dictionaries(
    {f"do_{step}": st.booleans() for step in ("resize", "center_crop", "rescale", "normalize")}
)
triples = st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3)


@given(arrays(small, small), flags, st.floats(1e-4, 2.0), triples, triples)
@settings(deadline=None, max_examples=100)
def test_any_choice_of_steps_has_the_peers_pixel_values(array, steps, rescale_factor, mean, std):
    fields = {**steps, "rescale_factor": rescale_factor, "image_mean": mean, "image_std": std}
    ours = ImageProcessor()(array, size=32, crop_size=24, **fields)
    theirs = peer(Image.fromarray(array), size={"shortest_edge": 32}, crop_size={"height": 24, "width": 24}, **fields)
    np.testing.assert_array_equal(ours, theirs)


def test_what_is_missing_is_black_before_normalization():
    values = ImageProcessor(do_resize=False)(np.full((100, 100, 3), 255, dtype=np.uint8))
    mean, std = np.array(ImageProcessor().image_mean), np.array(ImageProcessor().image_std)
    np.testing.assert_allclose(values[0, :, 0, 0], -mean / std, rtol=1e-6)
    np.testing.assert_allclose(values[0, :, 112, 112], (1 - mean) / std, rtol=1e-6)


@pytest.mark.parametrize("resample", range(6))
def test_pixels_are_those_of_the_resize_that_is_written_out(resample):
    array = np.asarray(Image.open(PHOTOGRAPHS / "coffee.png"))
    expected = center_crop(resize(array, (224, 336), resample), (224, 224))
    np.testing.assert_array_equal(ImageProcessor(resample=resample).pixels(array), expected)


@given(st.lists(arrays(small, small), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_a_batch_is_its_images_one_by_one(images):
    processor = ImageProcessor(size=20, crop_size=16)
    one_by_one = np.concatenate([processor(image) for image in images])
    np.testing.assert_array_equal(processor(images), one_by_one)
    np.testing.assert_array_equal(processor.normalize(processor.batch(images)), one_by_one)


def test_an_array_of_images_is_a_batch():
    images = np.stack([NOISE, NOISE[::-1]])
    for batch in (images, torch.from_numpy(images), torch.from_numpy(images).permute(0, 3, 1, 2)):
        np.testing.assert_array_equal(ImageProcessor()(batch), ImageProcessor()(list(images)))


def test_an_override_holds_for_one_call():
    processor = ImageProcessor()
    assert processor(NOISE, crop_size=32).shape == (1, 3, 32, 32)
    assert processor(NOISE).shape == (1, 3, 224, 224)


def test_a_jpeg_is_decoded_in_full():
    file = encoded(Image.open(PHOTOGRAPHS / "astronaut.png").convert("RGB"), "JPEG")
    expected = center_crop(resize(np.asarray(Image.open(file)), (32, 32), 3), (32, 32))  # draft would decode 64 x 64
    np.testing.assert_array_equal(ImageProcessor(size=32, crop_size=32).pixels(file), expected)


def test_a_strip_that_would_grow_beyond_the_limit_is_refused():
    refusal(lambda: ImageProcessor()(np.zeros((1, 30_000, 3), dtype=np.uint8)), "30000x1", "6720000x224")


def test_pixels_without_a_range_are_refused_by_file_name(tmp_path):
    path = tmp_path / "depth.tif"
    Image.new("F", (4, 4), 0.5).save(path)
    refusal(lambda: ImageProcessor()(path), path, "mode F")
    Image.new("I", (4, 4), 70_000).save(path)
    refusal(lambda: ImageProcessor()(path), path, "70000", "65535")


def test_an_empty_batch_is_refused():
    refusal(lambda: ImageProcessor()([]), "images is empty")


def test_images_that_differ_in_size_are_no_batch():
    steps = {"do_resize": False, "do_center_crop": False}
    refusal(lambda: ImageProcessor()([NOISE, NOISE[:20]], **steps), "20x60", "40x60")


def test_without_conversion_only_rgb_will_do():
    processor = ImageProcessor(do_convert_rgb=False)
    np.testing.assert_array_equal(processor(NOISE), ImageProcessor()(NOISE))
    refusal(lambda: processor(NOISE[..., 0]), "mode L", "do_convert_rgb")
    refusal(lambda: processor(NOISE[..., 0] / 255, do_rescale=False), "(40, 60)", "do_convert_rgb")


@pytest.mark.parametrize("pixels", [NOISE, NOISE[None].astype(np.float32), NOISE[None, ..., :1]])
def test_normalize_takes_a_batch_of_uint8_alone(pixels):
    refusal(lambda: ImageProcessor().normalize(pixels), str(pixels.shape), str(pixels.dtype))


def test_an_unknown_override_is_named():
    with pytest.raises(TypeError, match=r"'crop'.*crop_size"):
        ImageProcessor()(NOISE, crop=224)


def test_a_batch_is_a_list_a_tuple_or_an_array_of_four_axes():
    several = [[], [NOISE], (NOISE, NOISE), NOISE[None], torch.zeros(1, 3, 4, 4)]
    one = [NOISE, NOISE[..., 0], torch.zeros(3, 4, 4), Image.fromarray(NOISE), "a.png", b"", Path("a.png")]
    assert all(map(is_batch, several))
    assert not any(map(is_batch, one))


def test_what_is_no_path_is_opened_once(monkeypatch):
    opened = []
    monkeypatch.setattr(
        "minclip.images.processor.open_image", lambda source, *more: opened.append(1) or open_image(source)
    )
    images = [NOISE, Image.fromarray(NOISE), encoded(Image.fromarray(NOISE)), encoded(Image.fromarray(NOISE)).read()]
    processor = ImageProcessor(size=8, crop_size=8)
    for resize_too in (False, True):
        opened.clear()
        made = list(prepared(images, processor, workers=2, depth=2, resize=resize_too))
        assert len(opened) == len(images)
        for index, pixels in made:
            np.testing.assert_array_equal(pixels, processor.pixels(NOISE) if resize_too else NOISE, err_msg=str(index))


# Floats


@given(arrays(small, small), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_floats_of_bytes_give_what_the_bytes_give(array, do_resize, do_normalize):
    steps = {"size": 20, "crop_size": 16, "do_resize": do_resize, "do_normalize": do_normalize}
    floats = (array / 255).astype(np.float32)
    np.testing.assert_allclose(
        ImageProcessor()(floats, do_rescale=False, **steps), ImageProcessor()(array, **steps), atol=2e-6
    )


@given(st.integers(0, 2**32 - 1), small, small, st.sampled_from([np.float16, np.float32, np.float64]))
@settings(deadline=None, max_examples=60)
def test_floats_that_are_not_resized_have_the_peers_pixel_values(seed, height, width, kind):
    floats = np.random.default_rng(seed).random((height, width, 3)).astype(kind)
    steps = {"do_resize": False, "crop_size": {"height": 24, "width": 20}, "do_rescale": False}
    theirs = peer(floats, input_data_format="channels_last", **steps)
    tolerance = 1e-2 if kind is np.float16 else 1e-6  # the peer normalizes float16 in float16
    np.testing.assert_allclose(ImageProcessor()(floats, **steps), theirs, atol=tolerance, rtol=0)


@given(st.integers(0, 2**32 - 1), st.integers(8, 60), st.integers(8, 60))
@settings(deadline=None, max_examples=60)
def test_floats_that_are_resized_have_the_peers_pixel_values_but_for_its_truncation(seed, height, width):
    floats = np.random.default_rng(seed).random((height, width, 3))
    steps = {"crop_size": {"height": 24, "width": 20}, "do_rescale": False, "do_normalize": False}
    theirs = peer(floats, size={"shortest_edge": 32}, input_data_format="channels_last", **steps)
    assert np.abs(ImageProcessor()(floats, size=32, **steps) - theirs).max() <= 3.01 / 255  # ours are rounded


def test_bytes_and_floats_in_one_batch_are_each_as_they_would_be_alone():
    images = [NOISE, NOISE / 255]
    values = ImageProcessor()(images, do_rescale=False)
    np.testing.assert_array_equal(values, np.concatenate([ImageProcessor()(i, do_rescale=False) for i in images]))


@pytest.mark.parametrize("steps", [{}, {"do_resize": False}])
@pytest.mark.parametrize(
    ("array", "culprit"),
    [
        (np.full((4, 4, 3), 1.5), "from 1.5 to 1.5"),
        (np.full((4, 4, 3), -0.1), "from -0.1"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.where(np.eye(4, dtype=bool)[..., None], np.inf, [0.5, 0.5, 0.5]), "inf"),
        (np.full((4, 4, 3), 1e300), "1e+300"),
        (np.zeros((0, 4, 3)), "no pixels"),
        (np.zeros((5, 5, 2)), "(5, 5, 2)"),
    ],
)
def test_floats_beyond_0_to_1_are_refused(array, culprit, steps):
    refusal(lambda: ImageProcessor()([NOISE, array], do_rescale=False, **steps), "images[1]", culprit)


def test_float_transparency_lies_over_white():
    floats = np.random.default_rng(0).random((5, 6, 4))
    over_white = floats[..., :3] * floats[..., 3:] + 1 - floats[..., 3:]
    plain = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    np.testing.assert_allclose(ImageProcessor()(floats, **plain)[0], over_white.transpose(2, 0, 1), atol=1e-6)


def test_floats_go_through_the_processor_alone():
    found = list(prepared([NOISE / 255], ImageProcessor(do_rescale=False), workers=1, depth=1, resize=True))
    assert isinstance(found[0][1], ImageError)
    assert "do_rescale=False" in str(found[0][1])


def test_an_array_is_read_in_the_layout_that_is_named():
    array = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    steps = {"size": 8, "crop_size": 8}
    for layout in ("channels_first", "channels_last"):
        np.testing.assert_array_equal(
            ImageProcessor()(array, input_data_format=layout, **steps),
            peer(array, input_data_format=layout, size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8}),
        )
    assert ImageProcessor()(np.stack([array] * 2), input_data_format="channels_first").shape == (2, 3, 224, 224)


def test_a_layout_that_does_not_fit_is_named():
    refusal(lambda: ImageProcessor()(NOISE, input_data_format="channels_first"), "channels_first", "(40, 60, 3)")
    with pytest.raises(ValueError, match="input_data_format is 'HWC', expected channels_first or channels_last"):
        ImageProcessor()(NOISE, input_data_format="HWC")


def test_a_processor_shows_itself_on_one_line():
    assert repr(ImageProcessor()) == (
        "<minclip.ImageProcessor RGB, shortest edge to 224 bicubic, center crop 224x224, rescale, normalize>"
    )
    assert repr(ImageProcessor(size={"height": 3, "width": 4}, do_center_crop=False, do_rescale=False)) == (
        "<minclip.ImageProcessor RGB, 3x4 bicubic, normalize>"
    )
