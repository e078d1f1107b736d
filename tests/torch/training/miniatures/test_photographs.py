"""Photographs of things in shops: small made-up ones in the data set's layout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minclip.errors import ImageError
from minclip_torch.training.dataset import Captioner, DecodedImages, decode_images, draw_batch
from minclip_torch.training.entries import DataError, Entry, read_entries
from minclip_torch.training.miniatures.photographs import WEIGHT, GroceryClass, Photographs, copy
from minclip_torch.training.miniatures.pictures import write_lines

CLASSES = [
    ("Golden-Delicious", 0, "Apple", 0),
    ("Banana", 6, "Banana", 2),
    ("Anjou", 20, "Pear", 13),
    ("Oatly-Oat-Milk", 45, "Oat-Milk", 22),
    ("Papaya", 17, "Papaya", 10),
]
ANNOTATIONS = {
    "en": {"🍌": {"tts": ["banana"], "default": ["fruit"]}},
    "fr": {"🍌": {"tts": ["banane"], "default": ["fruit"]}, "🍐": {"tts": ["poire"]}},
    "de": {"🍐": {"tts": ["Birne"]}, "🍌": {"default": ["Obst"]}},
}


def write_source(folder: Path) -> Path:
    """Two photographs of each class to train on, upright and lying, one of each but the last to test on."""
    folder.mkdir(parents=True)
    rows = ["class,id,coarse_class,coarse_id", *(",".join(map(str, row)) for row in CLASSES)]
    (folder / "classes.csv").write_bytes("".join(f"{row}\r\n" for row in rows).encode())
    for split, sizes in (("train", [(192, 192), (192, 256)]), ("val", [(256, 192)])):
        listed = []
        for fine, number, coarse, coarse_number in CLASSES[: 5 if split == "train" else 4]:
            for i, size in enumerate(sizes):
                name = f"{split}/Shelf/{coarse}/{fine}/{fine}_{i:03}.jpg"
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size, (10 * number, 100, 50 * i)).save(folder / name)
                listed.append(f"{name}, {number}, {coarse_number}\n")
        (folder / f"{split}.txt").write_text("".join(listed))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "grocery")


def made(source: Path, out: Path) -> Photographs:
    out.mkdir()
    found = copy(source, out, ANNOTATIONS)
    write_lines(out / "train.jsonl", found.train)
    write_lines(out / "grocery.jsonl", found.test)
    return found


def test_each_class_is_one_entry_of_photographs_with_names_in_the_languages_that_have_one(
    source: Path, tmp_path: Path
) -> None:
    made(source, tmp_path / "out")
    found = read_entries(tmp_path / "out" / "train.jsonl")
    assert [entry.captions for entry in found] == [
        {"en": ("golden delicious apple", "apple", "golden delicious")},
        {"en": ("banana",), "fr": ("banane",)},
        {"en": ("papaya",)},
        {"en": ("anjou pear", "pear", "anjou"), "fr": ("poire",), "de": ("Birne",)},
        {"en": ("oatly oat milk", "oat milk", "carton of oat milk")},
    ]
    assert all(entry.photograph and entry.weight == WEIGHT and len(entry.images) == 2 for entry in found)
    assert [entry.mirror for entry in found] == [True, True, True, True, False]  # what is printed has a side


def test_photographs_are_whole_and_as_small_as_the_trainer_takes_them(source: Path, tmp_path: Path) -> None:
    made(source, tmp_path / "out")
    entries = read_entries(tmp_path / "out" / "train.jsonl")
    for entry in entries:
        assert [Image.open(path).size for path in entry.images] == [(80, 80), (80, 107)]
    pixels = decode_images(entries, 80).pixels.float().mean((2, 3))
    torch.testing.assert_close(pixels[3], torch.tensor([60.0, 100, 50, 255]), atol=2, rtol=0)  # the second banana


def test_the_test_file_holds_the_other_photographs_as_they_were(source: Path, tmp_path: Path) -> None:
    photographs = made(source, tmp_path / "out")
    found = read_entries(tmp_path / "out" / "grocery.jsonl")
    names = [entry.captions["en"][0] for entry in found]
    assert names == ["golden delicious apple", "banana", "anjou pear", "oatly oat milk"]
    assert all(set(entry.captions) == {"en"} for entry in found)
    held_out = sorted(path.read_bytes() for path in (source / "val").rglob("*.jpg"))
    assert sorted(path.read_bytes() for entry in found for path in entry.images) == held_out
    learned = {tmp_path / "out" / name for line in photographs.train for name in line["images"]}
    assert not learned & {path for entry in found for path in entry.images}


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photograph_to_train_and_to_test_on_is_refused(source: Path, tmp_path: Path, suffix: str) -> None:
    """Its file, or its pixels in another file, though what is trained on is made smaller."""
    trained, asked = (source / split / "Shelf/Banana/Banana" for split in ("train", "val"))
    if suffix == "jpg":
        shutil.copyfile(asked / "Banana_000.jpg", trained / "Banana_000.jpg")
    else:
        with Image.open(asked / "Banana_000.jpg") as image:
            image.save(trained / "Banana_000.jpg", format="PNG")
    assert re.search(
        r"train/Shelf/Banana/Banana/Banana_000\.jpg, which is trained on, is the exam's .*val/Shelf/.*: leave it out",
        refused(source, tmp_path),
    )


def test_the_names_are_those_of_all_classes(source: Path, tmp_path: Path) -> None:
    assert made(source, tmp_path / "out").names == [
        "golden delicious apple", "banana", "anjou pear", "oatly oat milk", "papaya",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fine", "coarse", "name", "keywords"),
    [
        ("Watermelon", "Melon", "watermelon", ("melon",)),
        ("Satsumas", "Satsumas", "satsuma", ("satsumas", "mandarin")),
        ("Red-Bell-Pepper", "Pepper", "red bell pepper", ("pepper", "bell pepper")),
        ("Brown-Cap-Mushroom", "Mushroom", "brown cap mushroom", ("mushroom",)),
        ("Tropicana-Golden-Grapefruit", "Juice", "tropicana golden grapefruit juice", None),
        ("God-Morgon-Apple-Juice", "Juice", "god morgon apple juice", ("juice", "apple juice", "carton of juice")),
    ],
)
def test_classes_are_called_as_people_write(
    fine: str, coarse: str, name: str, keywords: tuple[str, ...] | None
) -> None:
    found = GroceryClass.of(fine, coarse)
    assert found.name == name
    assert keywords is None or found.keywords == keywords


def test_forty_rows_in_a_batch_of_256_are_photographs() -> None:
    """Beside as many drawings, of such weights, as WEIGHT was chosen for; none of them twice."""
    weights = [WEIGHT] * 81 + [1.0] * 1572 + [0.35] * 1841 + [0.15] * 1270
    entries = [Entry((), {"en": ("x",)}, weight=weight, photograph=weight == WEIGHT) for weight in weights]
    spans = np.stack([np.zeros(len(weights), int), np.ones(len(weights), int)], axis=1)
    pictures = DecodedImages(torch.zeros(1, 4, 1, 1, dtype=torch.uint8), spans)
    batches = [draw_batch(pictures, entries, Captioner(), 256, 0, step, slice(0, 256)) for step in range(60)]
    assert np.mean([int(batch.photograph.sum()) for batch in batches]) == pytest.approx(45, abs=2)
    assert all(len(set(batch.entries.tolist())) == 256 for batch in batches)


# --- what is wrong with a copy -------------------------------------------------------------------------------------


def refused(source: Path, tmp_path: Path) -> str:
    (tmp_path / "out").mkdir(exist_ok=True)
    with pytest.raises(DataError) as caught:
        copy(source, tmp_path / "out", ANNOTATIONS)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "out").iterdir())  # nothing half written
    return str(caught.value)


def test_a_folder_or_a_list_that_is_missing_is_named(source: Path, tmp_path: Path) -> None:
    assert refused(tmp_path / "absent", tmp_path).startswith(f"{tmp_path / 'absent'} is no folder: it should be")
    for name in ("val.txt", "train.txt", "classes.csv"):
        (source / name).unlink()
        assert refused(source, tmp_path).startswith(f"{source / name} cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("classes.csv", "", "classes.csv: expected the columns class,id,coarse_class,coarse_id and found "),
        ("classes.csv", "Class Name (str),Class ID (int)\nBanana,6\n", "and found Class Name (str),Class ID (int)"),
        ("classes.csv", "class,id,coarse_class,coarse_id\nBanana,six,Banana,2\n", "classes.csv, line 2: expected"),
        ("classes.csv", "class,id,coarse_class,coarse_id\nA,6,A,2\nB,6,B,2\n", "classes.csv, line 3: expected"),
        ("train.txt", "train/a.jpg 0 0\n", "train.txt, line 1: expected a path, a class of classes.csv and"),
        ("train.txt", "\ntrain/a.jpg, 80, 0\n", "train.txt, line 2: expected a path, a class of classes.csv and"),
        ("train.txt", "train/a.jpg, 0, 0\n", "train.txt, line 1: there is no "),
        ("val.txt", "\n", "val.txt lists no photographs"),
    ],
)
def test_another_layout_is_one_line_that_names_the_file(
    source: Path, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (source / name).write_text(content)
    assert says in refused(source, tmp_path)


def test_a_photograph_that_cannot_be_read_is_named(source: Path, tmp_path: Path) -> None:
    broken = next((source / "train").rglob("*.jpg"))
    broken.write_bytes(b"\xff\xd8no more")
    (tmp_path / "out").mkdir()
    with pytest.raises(ImageError, match=broken.name):
        copy(source, tmp_path / "out", ANNOTATIONS)
