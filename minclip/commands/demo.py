"""`minclip demo`: offline, the bundled pictures, each with labels of another language; or a picture of the user's.

The pictures are emoji by artists whose drawings the bundled models were trained on: a demonstration, not a measurement.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from minclip import notice
from minclip.commands import common, printing
from minclip.loading import load
from minclip.model import Model
from minclip.ranking import Ranking

PICTURES = Path(__file__).parents[1] / "bundled" / "pictures"
SHOWN = 5  # labels of a picture


class Example(NamedTuple):
    """A file in `PICTURES`, and what it might show: names of Unicode's CLDR in one language, the right one first."""

    picture: str
    language: str
    labels: tuple[str, ...]
    english: tuple[str, ...]  # the labels in English


EXAMPLES = (
    Example(
        "dog.png", "English",
        ("dog", "elephant", "bicycle", "pizza", "umbrella"),
        ("dog", "elephant", "bicycle", "pizza", "umbrella"),
    ),
    Example(
        "guitar.png", "Spanish",
        ("guitarra", "paraguas", "velero", "manzana roja", "gato"),
        ("guitar", "umbrella", "sailboat", "red apple", "cat"),
    ),
    Example(
        "rocket.png", "Russian",
        ("ракета", "собака", "зонт", "велосипед", "банан"),
        ("rocket", "dog", "umbrella", "bicycle", "banana"),
    ),
    Example(
        "apple.png", "Arabic",
        ("تفاح أحمر", "صاروخ", "قطة", "مفتاح", "حافلة"),
        ("red apple", "rocket", "cat", "key", "bus"),
    ),
    Example(
        "umbrella.png", "Hindi",
        ("छाता", "मछली", "गिटार", "सूर्य", "घोड़ा"),
        ("umbrella", "fish", "guitar", "sun", "horse"),
    ),
    Example(
        "bicycle.png", "Thai",
        ("จักรยาน", "แมว", "กล้วย", "ปลา", "ลูกโป่ง"),
        ("bicycle", "cat", "banana", "fish", "balloon"),
    ),
    Example(
        "snowman.png", "Korean",
        ("눈사람", "피자", "자동차", "나비", "우산"),
        ("snowman", "pizza", "car", "butterfly", "umbrella"),
    ),
    Example(
        "fish.png", "Chinese",
        ("鱼", "火箭", "吉他", "红苹果", "雪人"),
        ("fish", "rocket", "guitar", "red apple", "snowman"),
    ),
)  # fmt: skip
THINGS = tuple(sorted({label for example in EXAMPLES for label in example.english}))  # of all examples, in English


class Answer(NamedTuple):
    """A picture and its ranked labels."""

    path: Path
    language: str  # of the labels; "" where it is not known
    ranking: Ranking

    @property
    def title(self) -> str:
        return f"{self.path.name} ({self.language})" if self.language else printing.printable(str(self.path))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("picture", nargs="?", metavar="PICTURE", help="a picture of yours (default: the bundled ones)")
    parser.add_argument(
        "labels", nargs="*", metavar="LABEL", help=f"what it might show (default: {len(THINGS)} everyday things)"
    )
    parser.add_argument("--sheet", metavar="OUT.png", help="draw pictures and labels into this file instead")
    parser.add_argument(
        "--font", action="append", default=[], metavar="FILE", help="TrueType font for the sheet; may be repeated"
    )
    parser.set_defaults(how_to_choose=f"use minclip zero-shot --model {notice.ANOTHER}")


def run(options: argparse.Namespace) -> int:
    """The bundled pictures, or one of the user's, in several languages; also as a sheet."""
    if options.sheet is not None:
        inputs = [options.picture] if options.picture else []
        common.check_output(Path(options.sheet), inputs, ".png")
    model = load()
    if options.picture is not None:
        answers = [own_picture(model, options.picture, options.labels or THINGS)]
    else:
        answers = [
            Answer(PICTURES / example.picture, example.language, ranking) for example, ranking in rankings(model)
        ]
    if options.sheet is not None:
        return draw_sheet(model, answers, options)
    for answer in answers:
        show(answer)
    if options.picture is None:
        print(f"\nthe first one in Python:\n{in_python(EXAMPLES[0])}")
    return 0


def rankings(model: Model) -> Iterator[tuple[Example, Ranking]]:
    """Each example with its labels ranked. All texts go through the model at once, and all pictures."""
    image_embeds = model.encode_image([PICTURES / example.picture for example in EXAMPLES])
    label_embeds = model.encode_text([label for example in EXAMPLES for label in example.labels])
    start = 0
    for row, example in enumerate(EXAMPLES):
        end = start + len(example.labels)
        yield example, model.rank(image_embeds[row : row + 1], example.labels, label_embeds[start:end])[0]
        start = end


def own_picture(model: Model, picture: str, labels: Sequence[str]) -> Answer:
    """The best labels for a picture of the user's."""
    return Answer(Path(picture), "", model.zero_shot(picture, list(labels), top_k=SHOWN))


def in_python(example: Example) -> str:
    """The two lines of Python that rank an example's labels."""
    return f"import minclip\nminclip.zero_shot({str(PICTURES / example.picture)!r}, {list(example.labels)!r})"


def show(answer: Answer) -> None:
    """Title and bars; the picture on their left where the terminal says that it has all colours."""
    lines = printing.bars(answer.ranking)
    if not (sys.stdout.isatty() and os.environ.get("COLORTERM") in ("truecolor", "24bit")):
        print(answer.title, *lines, sep="\n  ")
        return
    from minclip.commands.sheet import THUMBNAIL, thumbnail

    beside = ["", answer.title, *lines]
    for left, right in zip_longest(thumbnail(answer.path), beside, fillvalue=""):
        print(f" {left or ' ' * THUMBNAIL}  {right}".rstrip())


def draw_sheet(model: Model, answers: Sequence[Answer], options: argparse.Namespace) -> int:
    """Write the sheet. Labels in a script that no font has are ranked again in English."""
    from minclip.commands.sheet import Fonts, sheet

    fonts = Fonts(options.font)
    drawn, in_english = [], []
    for answer in answers:
        if not all(fonts.can_draw(label) for label, _ in answer.ranking):
            english = [example.english for example in EXAMPLES if PICTURES / example.picture == answer.path]
            if not english:
                raise ValueError(f"no font for the labels of {answer.path}; name one that has their script with --font")
            answer = Answer(answer.path, "English", model.zero_shot(answer.path, english[0]))
            in_english.append(answer)
        drawn.append(answer)
    with common.writing(Path(options.sheet)) as file:
        sheet(drawn, fonts).save(file, format="PNG", optimize=True)
    if in_english:
        printing.complain(
            f"{len(in_english)} of {len(drawn)} are in English: name fonts of the other scripts with --font"
        )
    print(f"wrote {options.sheet}", file=sys.stderr)
    return 0
