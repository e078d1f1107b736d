"""What is held out: scores are those of the checkpoint, and to take them changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training import SIDE, entries, metrics, recipe, write_data, write_start

import minclip
from minclip.config import read_config
from minclip.errors import MinclipError
from minclip.images import ImageProcessor
from minclip.processor import Processor
from minclip_torch.modules import Clip
from minclip_torch.training.heldout import HeldOut
from minclip_torch.training.recipe import Recipe
from minclip_torch.training.train import Run, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl with its pictures, and a start folder."""
    made = tmp_path_factory.mktemp("heldout")
    write_data(made)
    write_start(made / "clip")
    return made


def go(folder: Path, run: Path, made: Recipe, **options: Any) -> None:
    train(folder / "clip", folder / "data.jsonl", run, made, progress=False, **options)


def test_metrics_tell_what_the_checkpoint_scores(folder: Path, tmp_path: Path) -> None:
    go(folder, tmp_path, recipe(learning_rate=0.02, languages=("en",)), test=folder / "data.jsonl")
    (line,) = metrics(tmp_path)
    model = minclip.load(tmp_path / "model")
    names = [entry["captions"]["en"][0] for entry in entries()]
    pictures = [(entry["captions"]["en"][0], str(folder / image)) for entry in entries() for image in entry["images"]]
    rankings = model.zero_shot([path for _, path in pictures], names)
    ranked = [[prediction.label for prediction in ranking] for ranking in rankings]
    places = [labels.index(name) for (name, _), labels in zip(pictures, ranked, strict=True)]
    # half precision may swap two names that are close
    assert line["top1"] == pytest.approx(np.mean([place < 1 for place in places]), abs=0.1)
    assert line["top5"] == pytest.approx(np.mean([place < 5 for place in places]), abs=0.1)


def test_a_held_out_set_may_be_smaller_than_five(folder: Path, tmp_path: Path) -> None:
    few = folder / "few.jsonl"
    few.write_text("".join((folder / "data.jsonl").read_text().splitlines(keepends=True)[:2]))
    go(folder, tmp_path, recipe(steps=1), test=few)
    assert metrics(tmp_path)[0]["top5"] == 1


def test_a_held_out_set_must_fit_the_image_tower(folder: Path, tmp_path: Path) -> None:
    start = write_start(tmp_path / "start")
    ImageProcessor(size={"shortest_edge": 24}, crop_size={"height": 20, "width": 24}).save(start)
    with pytest.raises(MinclipError, match=r"pictures of 20 x 24 pixels and the image tower takes 16 x 16"):
        Run(start, folder / "data.jsonl", tmp_path / "run", recipe(), test=folder / "data.jsonl")


def test_a_picture_that_is_not_cut_to_a_square_is_refused(folder: Path, tmp_path: Path) -> None:
    """Though the first ones are square by themselves."""
    start = write_start(tmp_path / "start")
    ImageProcessor(size={"shortest_edge": SIDE}, do_center_crop=False).save(start)
    Image.new("RGB", (40, 20)).save(tmp_path / "wide.png")
    lines = [*entries(), {"images": [str(tmp_path / "wide.png")], "captions": {"en": ["a bar"]}}]
    test = folder / "wide.jsonl"
    test.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MinclipError, match=r"pictures of 16 x 32 pixels and the image tower takes 16 x 16"):
        Run(start, folder / "data.jsonl", tmp_path / "run", recipe(), test=test)


def test_names_that_two_entries_share_are_one_class(folder: Path) -> None:
    """As in `evaluate`: an ordinary file of image-text pairs has a line for each picture."""
    lines = [
        {"images": [image], "captions": {"en": entry["captions"]["en"][:1]}}
        for entry in entries()
        for image in entry["images"]
    ]
    pairs = folder / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = Clip(read_config(folder / "clip"))
    processor = Processor.from_checkpoint(folder / "clip", model.config)
    one, other = (HeldOut(path, ("en",), processor, SIDE) for path in (folder / "data.jsonl", pairs))
    assert other.names == one.names == [entry["captions"]["en"][0] for entry in entries()]
    np.testing.assert_array_equal(other.owners, one.owners)
    assert torch.equal(other.pixels, one.pixels)


def test_evaluation_does_not_disturb_training(folder: Path, tmp_path: Path) -> None:
    made = recipe(drop_patches=0.5)
    go(folder, tmp_path / "a", made, every=1, test=folder / "data.jsonl")
    go(folder, tmp_path / "b", made, every=4)
    ours, theirs = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in "ab")
    torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
