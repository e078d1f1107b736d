"""Opening pictures, and the image processor against Transformers' Pillow one, with the order of the resize pinned."""

import contextlib
import io
import json
import struct
import warnings
import zlib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from transformers import AutoImageProcessor
from transformers.image_transforms import center_crop as peer_center_crop
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from minclip.errors import ConfigError, ImageError
from minclip.images.image import ImageProcessor, center_crop, open_image, to_rgb
from minclip.images.resize import resize

PHOTOGRAPHS = Path(skimage.data.__file__).parent
NAMES = ["astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "camera.png", "hubble_deep_field.jpg"]
RELEASED = Path(__file__).parents[3] / "shared" / "data" / "clip-vit-base-patch32"

edges = st.integers(1, 300)
small = st.integers(1, 60)


@st.composite
def arrays(draw, heights=edges, widths=edges, channels=(3,)):
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return noise.integers(0, 256, (draw(heights), draw(widths), *channels), dtype=np.uint8)


@contextlib.contextmanager
def columns_first():
    """Pillow resizing in two calls of one dimension, as every version before 13 did inside one."""
    one_call = Image.Image.resize

    def resize(picture, size, resample=None, box=None, reducing_gap=None):
        return one_call(one_call(picture, (size[0], picture.height), resample), size, resample)

    with mock.patch.object(Image.Image, "resize", resize):
        yield


def peer(images, **fields):
    """Transformers' pixel_values, float32 (b, 3, h, w)."""
    with columns_first():
        return np.stack(CLIPImageProcessorPil(**fields)(images)["pixel_values"]).astype(np.float32)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    file.seek(0)
    return file


def rgb(source):
    return np.asarray(to_rgb(open_image(source)))


NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


# The processor against its peer


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


@given(arrays(small, small), small, small)
@settings(deadline=None, max_examples=300)
def test_the_center_crop_is_the_peers(array, height, width):
    expected = peer_center_crop(array, (height, width), input_data_format="channels_last")
    np.testing.assert_array_equal(center_crop(array, (height, width)), expected)


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
    np.testing.assert_array_equal(ImageProcessor()(images), ImageProcessor()(list(images)))


def test_an_override_holds_for_one_call():
    processor = ImageProcessor()
    assert processor(NOISE, crop_size=32).shape == (1, 3, 32, 32)
    assert processor(NOISE).shape == (1, 3, 224, 224)


# What an image may be


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


@given(arrays(st.integers(1, 6), st.integers(1, 6), channels=(3,)))
@settings(deadline=None)
def test_an_array_means_the_picture_that_it_came_from_whatever_its_size(array):
    np.testing.assert_array_equal(rgb(array), array)


@given(arrays(st.integers(5, 9), st.integers(5, 9), channels=()), st.sampled_from([1, 3, 4]))
@settings(deadline=None)
def test_channels_first_equals_channels_last(grey, channels):
    last = np.stack([grey // (c + 1) for c in range(channels)], axis=-1)
    np.testing.assert_array_equal(rgb(np.moveaxis(last, -1, 0)), rgb(last))


def test_a_grey_array_is_three_equal_channels():
    expected = np.repeat(NOISE[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(rgb(NOISE[..., 0]), expected)
    np.testing.assert_array_equal(rgb(NOISE[..., :1]), expected)


def picture_of_mode(mode):
    """Noise in a mode of Pillow, alpha included."""
    noise = np.random.default_rng(1).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba = Image.fromarray(noise)
    if mode == "PA":
        return rgba.convert("P").convert("PA")
    if mode == "LAB":
        return Image.frombytes("LAB", (30, 20), noise[..., :3].tobytes())
    return rgba.convert("RGB").convert(mode) if mode in ("HSV", "YCbCr", "CMYK", "P") else rgba.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"])
def test_every_8_bit_mode_becomes_the_peers_rgb(mode):
    picture = picture_of_mode(mode)
    fields = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    np.testing.assert_array_equal(ImageProcessor()(picture, **fields), peer(picture, **fields))


@pytest.mark.parametrize(("plain", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_premultiplied_alpha_means_the_same_as_plain(plain, premultiplied):
    picture = picture_of_mode(plain)
    difference = rgb(picture.convert(premultiplied)).astype(int) - rgb(picture)
    assert np.abs(difference).max() <= 1  # premultiplying rounds


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(kind):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.paste(0, (0, 0, 8, 4))
    pixels = rgb(encoded(picture, kind, transparency=0))
    assert (pixels[:4] == 255).all()
    assert (pixels[4:] == (0, 0, 255)).all()


def test_transparency_lies_over_white():
    clear, half, full = (rgb(np.full((2, 2, 4), (0, 0, 0, alpha), dtype=np.uint8))[0, 0, 0] for alpha in (0, 128, 255))
    assert (clear, half, full) == (255, 127, 0)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_16_bit_grey_keeps_its_range(mode):
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    kind = {"I": np.dtype("i4"), "I;16B": np.dtype(">u2")}.get(mode, np.dtype("<u2"))
    picture = Image.frombytes(mode, (256, 256), levels.astype(kind).tobytes())
    np.testing.assert_array_equal(rgb(picture), np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=-1))


def test_a_16_bit_png_of_an_8_bit_photograph_is_that_photograph():
    photograph = np.asarray(Image.open(PHOTOGRAPHS / "camera.png"))
    deep = Image.fromarray(photograph.astype(np.uint16) * 257)
    np.testing.assert_array_equal(rgb(encoded(deep)), rgb(photograph))


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


def test_a_jpeg_is_decoded_in_full():
    file = encoded(Image.open(PHOTOGRAPHS / "astronaut.png").convert("RGB"), "JPEG")
    expected = center_crop(resize(np.asarray(Image.open(file)), (32, 32), 3), (32, 32))  # draft would decode 64 x 64
    np.testing.assert_array_equal(ImageProcessor(size=32, crop_size=32).pixels(file), expected)


def test_an_animation_is_its_first_frame():
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    file = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (rgb(file) == (255, 0, 0)).all()


# What goes wrong


def refusal(call, *culprits):
    """The one line of the ImageError that call() raises, with each culprit in it."""
    with pytest.raises(ImageError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for culprit in culprits:
        assert str(culprit) in message
    return message


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


def test_a_strip_that_would_grow_beyond_the_limit_is_refused():
    refusal(lambda: ImageProcessor()(np.zeros((1, 30_000, 3), dtype=np.uint8)), "30000x1", "6720000x224")


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


@pytest.mark.parametrize(
    ("array", "culprits"),
    [
        (np.zeros((8, 8, 3)), ("float64", "(8, 8, 3)", "* 255")),
        (np.full((8, 8, 3), np.nan, dtype=np.float32), ("NaN", "(8, 8, 3)")),
        (np.zeros((8, 8), dtype=np.uint16), ("uint16", ">> 8")),
        (np.zeros((8, 8), dtype=bool), ("bool", "* 255")),
        (np.zeros((8, 8), dtype=np.int64), ("int64", "astype('uint8')")),
        (np.zeros((8, 8, 2), dtype=np.uint8), ("(8, 8, 2)",)),
        (np.zeros(8, dtype=np.uint8), ("(8,)",)),
        (np.zeros((0, 8, 3), dtype=np.uint8), ("(0, 8, 3)", "no pixels")),
        (np.zeros((8, 0), dtype=np.uint8), ("(8, 0)", "no pixels")),
        (np.zeros((3, 0, 0), dtype=np.uint8), ("(3, 0, 0)", "no pixels")),
    ],
)
def test_an_array_that_is_no_image_is_described(array, culprits):
    refusal(lambda: open_image(array), *culprits)
    refusal(lambda: ImageProcessor()([NOISE, array]), "images[1]", *culprits)


@pytest.mark.parametrize("source", [None, 3, b"cat.jpg", object()])
def test_what_is_no_source_is_named_by_its_type(source):
    refusal(lambda: open_image(source), type(source).__name__, "path")


def test_a_text_file_object_is_told_to_be_binary():
    refusal(lambda: open_image(io.StringIO("cat")), "'rb'")


def test_an_empty_picture_is_refused():
    refusal(lambda: open_image(Image.new("RGB", (0, 5))), "0x5", "no pixels")


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


@pytest.mark.parametrize("pixels", [NOISE, NOISE[None].astype(np.float32), NOISE[None, ..., :1]])
def test_normalize_takes_a_batch_of_uint8_alone(pixels):
    refusal(lambda: ImageProcessor().normalize(pixels), str(pixels.shape), str(pixels.dtype))


# preprocessor_config.json


def test_the_defaults_are_the_peers():
    assert ImageProcessor().to_dict() == json.loads(CLIPImageProcessorPil().to_json_string())


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released tokenizer and processor files are not here")
def test_the_released_file_is_the_defaults():
    assert ImageProcessor.from_folder(RELEASED) == ImageProcessor()


@pytest.mark.parametrize("whole", [False, True])
def test_what_the_peer_saves_is_read(tmp_path, whole):
    fields = {"size": {"height": 30, "width": 40}, "crop_size": {"height": 20, "width": 10}, "resample": 2}
    theirs = CLIPImageProcessorPil(**fields, image_mean=[0.1, 0.2, 0.3])
    theirs.save_pretrained(tmp_path)
    if whole:  # as CLIPProcessor.save_pretrained writes it, beside an older file
        nested = json.loads((tmp_path / "preprocessor_config.json").read_text())
        (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
        CLIPImageProcessorPil().save_pretrained(tmp_path)
    ours = ImageProcessor.from_folder(tmp_path)
    np.testing.assert_array_equal(ours(NOISE), peer(Image.fromarray(NOISE), **fields, image_mean=[0.1, 0.2, 0.3]))


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_saved_is_read_by_the_peer_and_back(tmp_path, whole):
    if whole:
        nested = {"processor_class": "CLIPProcessor", "image_processor": CLIPImageProcessorPil().to_dict()}
        (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    ours = ImageProcessor(size=48, crop_size={"height": 32, "width": 40}, image_std=(0.5, 0.6, 0.7), do_rescale=False)
    ours.save(tmp_path)
    assert ImageProcessor.from_folder(tmp_path) == ours
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert isinstance(theirs, CLIPImageProcessorPil)
    with columns_first():
        expected = np.stack(theirs(Image.fromarray(NOISE))["pixel_values"])
    np.testing.assert_array_equal(ours(NOISE), expected)


def test_an_old_file_with_plain_numbers_is_read():
    old = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "do_center_crop": True}
    assert ImageProcessor.from_dict(old) == ImageProcessor()


def test_null_is_the_default():
    assert ImageProcessor.from_dict({"size": None, "do_rescale": None, "image_mean": None}) == ImageProcessor()


def test_unknown_fields_are_kept_for_saving(tmp_path):
    data = {**ImageProcessor().to_dict(), "processor_class": "CLIPProcessor", "do_pad": None}
    ImageProcessor.from_dict(data).save(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == data


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", 0), ("size", {}), ("size", {"longest_edge": 224}), ("size", {"height": 224}), ("size", "224"),
        ("size", {"shortest_edge": 224.5}), ("size", True), ("crop_size", {"shortest_edge": 224}), ("crop_size", -1),
        ("resample", 6), ("resample", "bicubic"), ("resample", True), ("do_resize", 1), ("do_convert_rgb", "yes"),
        ("image_mean", [0.5, 0.5]), ("image_mean", "grey"), ("image_mean", [0.5, 0.5, float("nan")]),
        ("image_std", [1, 1, 0]), ("image_std", 0), ("rescale_factor", 0), ("rescale_factor", "1/255"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_is_named_with_its_file(tmp_path, field, value):
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({field: value}))
    with pytest.raises(ConfigError) as caught:
        ImageProcessor.from_folder(tmp_path)
    assert str(caught.value).startswith(f"{path}: {field} ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=field):
        ImageProcessor()(NOISE, **{field: value})


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_a_file_that_is_no_json_object_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=name):
        ImageProcessor.from_folder(tmp_path)


def test_a_folder_without_the_file_says_which_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"has no preprocessor_config\.json"):
        ImageProcessor.from_folder(tmp_path)


def test_an_unknown_override_is_named():
    with pytest.raises(TypeError, match=r"'crop'.*crop_size"):
        ImageProcessor()(NOISE, crop=224)
