"""What `minclip demo` shows: the pictures in the box, each with labels of another language.

They are emoji by artists whose drawings the bundled models were trained on: a demonstration, not a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minclip.model import Model
from minclip.ranking import Ranking

PICTURES = Path(__file__).parents[1] / "bundled" / "pictures"


class Example(NamedTuple):
    """A file in `PICTURES`, and what it might show: names of Unicode's CLDR in one language, the right one first."""

    picture: str
    language: str
    labels: tuple[str, ...]


EXAMPLES = (
    Example("dog.png", "English", ("dog", "elephant", "bicycle", "pizza", "umbrella")),
    Example("guitar.png", "Spanish", ("guitarra", "paraguas", "velero", "manzana roja", "gato")),
    Example("rocket.png", "Russian", ("ракета", "собака", "зонт", "велосипед", "банан")),
    Example("apple.png", "Arabic", ("تفاح أحمر", "صاروخ", "قطة", "مفتاح", "حافلة")),
    Example("umbrella.png", "Hindi", ("छाता", "मछली", "गिटार", "सूर्य", "घोड़ा")),
    Example("bicycle.png", "Thai", ("จักรยาน", "แมว", "กล้วย", "ปลา", "ลูกโป่ง")),
    Example("snowman.png", "Korean", ("눈사람", "피자", "자동차", "나비", "우산")),
    Example("fish.png", "Chinese", ("鱼", "火箭", "吉他", "红苹果", "雪人")),
)


def rankings(model: Model) -> Iterator[tuple[Example, Ranking]]:
    """Each example with its labels ranked. All texts go through the model at once, and all pictures."""
    image_embeds = model.encode_image([PICTURES / example.picture for example in EXAMPLES])
    label_embeds = model.encode_text([label for example in EXAMPLES for label in example.labels])
    start = 0
    for row, example in enumerate(EXAMPLES):
        end = start + len(example.labels)
        yield example, model.rank(image_embeds[row : row + 1], example.labels, label_embeds[start:end])[0]
        start = end


def in_python(example: Example) -> str:
    """The two lines of Python that rank an example's labels."""
    return f"import minclip\nminclip.zero_shot({str(PICTURES / example.picture)!r}, {list(example.labels)!r})"
