"""No picture of an exam is trained on: sets made up to hold the same picture in every way there is, and not to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import triangles
from PIL import Image, ImageDraw

from minclip_torch.training.entries import DataError
from minclip_torch.training.miniatures.exam import alike, digests, look, overlap, refuse_overlap

Sets = tuple[Path, Path]


def write(path: Path, pictures: dict[str, Image.Image]) -> Path:
    """A data set of these pictures: two lines, and every picture of the second in both."""
    names = list(pictures)
    for name, image in pictures.items():
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(path.parent / name)
    lines = [{"images": names, "captions": ["a"]}, {"images": names[1:] or names, "captions": ["b"]}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def sets(tmp_path: Path) -> Sets:
    """A training set and an exam of five pictures each, all different."""
    train, exam = (
        write(tmp_path / f"{name}.jsonl", {f"{name}/{i}.png": triangles(start + i) for i in range(5)})
        for name, start in (("train", 0), ("exam", 100))
    )
    return train, exam


def test_sets_of_different_pictures_do_not_overlap(sets: Sets) -> None:
    assert overlap(*sets) == []
    assert alike(*sets) == []
    refuse_overlap(*sets)


def test_every_pair_of_the_same_file_is_found_once(sets: Sets) -> None:
    train, exam = sets
    same = exam.parent / "exam" / "3.png", train.parent / "train" / "1.png"
    same[0].write_bytes(same[1].read_bytes())
    assert overlap(train, exam) == [same]
    with pytest.raises(
        DataError, match=r"train/1\.png, which is trained on, is the exam's .*exam/3\.png: leave it out"
    ):
        refuse_overlap(train, exam)


def test_the_same_pixels_in_another_file_are_found(sets: Sets) -> None:
    train, exam = sets
    asked, trained = exam.parent / "exam" / "3.png", train.parent / "train" / "1.png"
    pixels = np.array(Image.open(trained))
    pixels[pixels[..., 3] == 0] = (1, 2, 3, 0)  # nobody sees the colour of what is transparent
    Image.fromarray(pixels).save(asked, compress_level=0)
    assert asked.read_bytes() != trained.read_bytes()
    assert overlap(train, exam) == [(asked, trained)]


def test_pixels_are_told_apart_from_the_same_bytes_in_another_shape(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(4, 6, 4), dtype=np.uint8) | 1
    for name, shape in (("a", (4, 6, 4)), ("b", (6, 4, 4))):
        Image.fromarray(pixels.reshape(shape)).save(tmp_path / f"{name}.png")
    assert digests(tmp_path / "a.png")[1] != digests(tmp_path / "b.png")[1]


def test_more_than_one_is_counted(sets: Sets) -> None:
    train, exam = sets
    for name in ("0.png", "4.png"):
        (exam.parent / "exam" / name).write_bytes((train.parent / "train" / name).read_bytes())
    with pytest.raises(DataError, match=r"exam/0\.png, and 1 more: leave it out"):
        refuse_overlap(train, exam)


def test_a_drawing_in_another_size_with_a_margin_over_white_is_alike(sets: Sets) -> None:
    train, exam = sets
    asked, trained = exam.parent / "exam" / "3.png", train.parent / "train" / "1.png"
    canvas = Image.new("RGBA", (200, 170), "white")
    large = triangles(1, side=130)
    canvas.paste(large, (50, 20), large)
    canvas.convert("RGB").save(asked)
    assert overlap(train, exam) == []
    assert alike(train, exam) == [(asked, trained)]


def test_the_most_similar_picture_is_named_wherever_it_stands(sets: Sets, monkeypatch: pytest.MonkeyPatch) -> None:
    train, exam = sets
    asked, trained = exam.parent / "exam" / "0.png", train.parent / "train"
    worse = triangles(1)
    ImageDraw.Draw(worse).rectangle((30, 30, 40, 40), fill="white")
    worse.save(trained / "4.png")
    triangles(1, 100).save(asked)
    for size in (1, 2, 1024):
        monkeypatch.setattr("minclip_torch.training.miniatures.exam.BATCH", size)
        assert alike(train, exam) == [(asked, trained / "1.png")]


@pytest.mark.parametrize("colour", ["white", "#0000", "black", "#ff000080"])
def test_what_shows_nothing_is_like_nothing(sets: Sets, colour: str) -> None:
    train, exam = sets
    for folder in ("train", "exam"):
        Image.new("RGBA", (30, 30), colour).save(train.parent / folder / "0.png")
    assert not look(Image.new("RGBA", (30, 30), colour)).any()
    assert alike(train, exam) == []
    assert len(overlap(train, exam)) == 1
