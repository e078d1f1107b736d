"""Photographs of fruit, vegetables and cartons in shops, for the training set of the bundled models.

They are those of the GroceryStoreDataset (Klasson, Zhang and Kjellström 2019, "A Hierarchical Grocery Store Image
Dataset with Visual and Semantic Labels"), read from a folder with

    classes.csv    class,id,coarse_class,coarse_id
    train.txt      train/Fruit/Apple/Golden-Delicious/Golden-Delicious_001.jpg, 0, 0
    val.txt        the same of the photographs that are never trained on
    train/, val/   the photographs
"""

from __future__ import annotations

import csv
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from minclip.images import open_image, to_rgb
from minclip_torch.training.entries import DataError
from minclip_torch.training.miniatures.exam import refuse_same
from minclip_torch.training.miniatures.things import Annotations, Line

SIDE = 80  # pixels of the shorter side: what the trainer decodes for a tower of 64, so that it resizes once
# A class is one entry, so that no batch has two photographs of one class that count as wrong for each other. Beside
# 1,572 entries of weight 1, 1,841 of 0.35 and 1,270 of 0.15, a weight of 9 draws each class into every second batch of
# 256: 45 of its rows are photographs, enough to learn from, while the drawings stay the larger part by far.
WEIGHT = 9.0

# Names are made by rule of the class and the coarse class: "Golden-Delicious" of "Apple" is "golden delicious apple".
# Lower case throughout, as all of the tokenizers here read it. These are the classes that people call otherwise:
RENAMED = {
    "Carrots": "carrot",
    "Satsumas": "satsuma",
    "Arla-Lactose-Medium-Fat-Milk": "arla lactose free medium fat milk",
    "God-Morgon-Orange-Red-Grapefruit-Juice": "god morgon orange and red grapefruit juice",
    "Tropicana-Juice-Smooth": "tropicana smooth juice",
}
BRANDS = ("alpro", "arla", "bravo", "garant", "god morgon", "oatly", "tropicana", "valio", "yoggi")  # all on cartons
KEYWORDS = {  # further words for a name or for a coarse class
    "aubergine": ["eggplant"],
    "carrot": ["carrots"],
    "ginger": ["ginger root"],
    "kiwi": ["kiwi fruit"],
    "oatghurt": ["oat yoghurt"],
    "pepper": ["bell pepper"],
    "red beet": ["beetroot", "beet"],
    "red grapefruit": ["grapefruit"],
    "satsuma": ["satsumas", "mandarin"],
    "soyghurt": ["soy yoghurt"],
    "tropicana smooth juice": ["orange juice"],
    "vine tomato": ["tomatoes on the vine"],
    "zucchini": ["courgette"],
}
# The emoji whose name in CLDR is that of the class or of the coarse class, in any language. Not there: what CLDR lacks,
# and what it knows only beside something else (its 🍠 is roasted, its 🥛 is a glass).
EMOJI = {
    "granny smith apple": "🍏", "pink lady apple": "🍎", "red delicious apple": "🍎", "royal gala apple": "🍎",
    "avocado": "🥑", "banana": "🍌", "kiwi": "🥝", "lemon": "🍋", "lime": "🍋\u200d🟩", "mango": "🥭",
    "watermelon": "🍉", "cantaloupe melon": "🍈", "galia melon": "🍈", "honeydew melon": "🍈", "peach": "🍑",
    "pear": "🍐", "pineapple": "🍍", "satsuma": "🍊", "aubergine": "🍆", "carrot": "🥕", "cucumber": "🥒",
    "garlic": "🧄", "ginger": "🫚", "brown cap mushroom": "🍄\u200d🟫", "onion": "🧅", "pepper": "🫑",
    "floury potato": "🥔", "solid potato": "🥔", "tomato": "🍅",
}  # fmt: skip


@dataclass(frozen=True)
class GroceryClass:
    """One class: its name in English, further English words, and the coarse class it belongs to."""

    name: str
    keywords: tuple[str, ...]
    coarse: str
    carton: bool

    @classmethod
    def of(cls, fine: str, coarse: str) -> GroceryClass:
        """Of a line of classes.csv: "Golden-Delicious", "Apple"."""
        kind, words = (RENAMED.get(text, text.replace("-", " ").lower()) for text in (coarse, fine))
        name = words if kind in words else f"{words} {kind}"
        brand = next((brand for brand in BRANDS if name.startswith(f"{brand} ")), "")
        keywords = [kind, *([] if kind in words else [words])]
        if brand:
            keywords += [name.removeprefix(f"{brand} "), f"carton of {kind}"]
        keywords += [*KEYWORDS.get(name, []), *KEYWORDS.get(kind, [])]
        return cls(name, tuple(word for word in dict.fromkeys(keywords) if word != name), kind, bool(brand))

    def captions(self, annotations: Mapping[str, Annotations]) -> dict[str, list[str]]:
        """English, and CLDR's name in each other language that has one. Its keywords may be of something else."""
        found = {"en": [self.name, *self.keywords]}
        emoji = EMOJI.get(self.name) or EMOJI.get(self.coarse, "")
        for language, names in annotations.items():
            if language != "en" and names.get(emoji, {}).get("tts"):
                found[language] = [names[emoji]["tts"][0]]
        return found


class Photographs(NamedTuple):
    """The lines to train on, a line per class; the lines of the test; and the names of all classes."""

    train: list[Line]
    test: list[Line]
    names: list[str]


def copy(source: Path, out: Path, annotations: Mapping[str, Annotations]) -> Photographs:
    """Write the photographs into out/photographs, and say what is on them.

    source: the data set's folder. annotations: CLDR's, for each language the emoji with their "tts". The photographs
    trained on are JPEGs with a shorter side of 80 pixels; those of the test are copies. Raises DataError, before
    anything is written, where a file is missing or has another layout, or a photograph of the test is trained on;
    ImageError naming a photograph that cannot be read.
    """
    if not source.is_dir():
        raise DataError(
            f"{source} is no folder: it should be a copy of the GroceryStoreDataset, with classes.csv in it"
        )
    classes = _classes(source / "classes.csv")
    train, val = (_photographs(source, split, classes) for split in ("train", "val"))
    refuse_same(*([path for paths in split.values() for path in paths] for split in (train, val)))
    for split in ("train", "val"):
        (out / "photographs" / split).mkdir(parents=True)
    found = Photographs([], [], list(dict.fromkeys(one.name for one in classes.values())))
    for number, paths in train.items():
        one = classes[number]
        images = [f"photographs/train/{number}-{i}.jpg" for i in range(len(paths))]
        for path, image in zip(paths, images, strict=True):
            _shrink(path).save(out / image, quality=95, subsampling=0)
        shared = {"photograph": True, "mirror": not one.carton, "weight": WEIGHT}  # the print on a carton has a side
        found.train.append({"name": one.name, "images": images, "captions": one.captions(annotations), **shared})
    for number, paths in val.items():
        one = classes[number]
        images = [f"photographs/val/{number}-{i}{path.suffix}" for i, path in enumerate(paths)]
        for path, image in zip(paths, images, strict=True):
            shutil.copyfile(path, out / image)
        found.test.append({"name": one.name, "images": images, "captions": {"en": [one.name, *one.keywords]}})
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a file of comma-separated values that are not empty, with their numbers."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return ((number, [cell.strip() for cell in row]) for number, row in enumerate(rows, start=1) if row)


def _classes(path: Path) -> dict[int, GroceryClass]:
    """The classes by their number."""
    (_, head), *rows = [*_rows(path)] or [(1, [])]
    if head != ["class", "id", "coarse_class", "coarse_id"]:
        raise DataError(f"{path}: expected the columns class,id,coarse_class,coarse_id and found {','.join(head):.80}")
    found: dict[int, GroceryClass] = {}
    for number, row in rows:
        if len(row) != 4 or not row[0] or not row[1].isdecimal() or not row[2] or int(row[1]) in found:
            raise DataError(f"{path}, line {number}: expected a class, a number of its own, a coarse class, its number")
        found[int(row[1])] = GroceryClass.of(row[0], row[2])
    return found


def _photographs(source: Path, split: str, classes: Mapping[int, GroceryClass]) -> dict[int, list[Path]]:
    """The photographs of each class in train.txt or val.txt, in the order of the classes."""
    listed = source / f"{split}.txt"
    found: dict[int, list[Path]] = defaultdict(list)
    for number, row in _rows(listed):
        if len(row) != 3 or not row[1].isdecimal() or int(row[1]) not in classes:
            raise DataError(f"{listed}, line {number}: expected a path, a class of classes.csv and a coarse class")
        path = source / row[0]
        if not path.is_file():
            raise DataError(f"{listed}, line {number}: there is no {path}; the copy of the data set is not complete")
        found[int(row[1])].append(path)
    if not found:
        raise DataError(f"{listed} lists no photographs")
    return dict(sorted(found.items()))


def _shrink(path: Path) -> Image.Image:
    """A photograph in RGB whose shorter side is SIDE pixels. The whole of it: the trainer crops."""
    image = to_rgb(open_image(path), str(path))
    scale = SIDE / min(image.size)
    width, height = (max(SIDE, round(n * scale)) for n in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
