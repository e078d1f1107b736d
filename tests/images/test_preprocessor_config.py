"""preprocessor_config.json, read and written."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from pictures import NOISE, columns_first, peer
from PIL import Image
from transformers import AutoImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from minclip.errors import ConfigError
from minclip.images import ImageProcessor

RELEASED = Path(__file__).parents[3] / "shared" / "data" / "clip-vit-base-patch32"


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
        ("image_std", 10**400), ("image_mean", [0.5, 0.5, -(10**400)]), ("rescale_factor", 10**400),
        ("image_mean", 1e39),
        ("image_std", 1e-50), ("size", 10**400), ("crop_size", {"height": 10**400, "width": 1}), ("resample", 10**400),
        ("size", 1_000_001), ("size", {"height": 2**63, "width": 2**63}), ("crop_rounding", "up"),
        ("crop_rounding", 1),
        ("do_resize", 10**400), ("do_resize", "x" * 100_000), ("size", {"a" * 100_000: 1}), ("image_std", {"r": [[]]}),
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


def test_an_error_shows_a_long_value_in_short():
    for field, value in [("do_resize", "x" * 100_000), ("size", 10**400), ("size", 10**5000), ("image_std", 10**5000)]:
        with pytest.raises(ConfigError, match=field) as caught:
            ImageProcessor(**{field: value})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "fields",
    [{"rescale_factor": 3e38}, {"image_mean": 3e38, "image_std": 1e-30}, {"image_std": 2e-38, "do_rescale": False}],
    ids=["rescale", "both", "std"],
)
def test_fields_that_make_no_finite_pixel_value_are_refused(fields):
    with pytest.raises(ConfigError, match="float32 cannot hold"):
        ImageProcessor(**fields)


def test_files_are_what_save_writes(tmp_path):
    processor = ImageProcessor(size=48)
    other = {"processor_class": "CLIPProcessor", "tokenizer": {"a": 1}}
    for whole in (None, other, {**other, "image_processor": {}}):
        if whole is not None:
            (tmp_path / "processor_config.json").write_text(json.dumps(whole))
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        files = processor.files(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        processor.save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {**before, **files}
    assert json.loads(files["processor_config.json"]) == {**other, "image_processor": processor.to_dict()}


def test_a_save_that_fails_changes_no_file(tmp_path, monkeypatch):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {}}))
    ImageProcessor().save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ImageProcessor(size=48).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_rounding_that_differs_is_saved_and_does_not_disturb_the_peer(tmp_path):
    assert "crop_rounding" not in ImageProcessor().to_dict()
    ours = ImageProcessor(crop_rounding="half_even")
    ours.save(tmp_path)
    assert ImageProcessor.from_folder(tmp_path) == ours
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    with columns_first():
        expected = np.stack(theirs(Image.fromarray(NOISE))["pixel_values"])
    np.testing.assert_array_equal(ImageProcessor()(NOISE), expected)
