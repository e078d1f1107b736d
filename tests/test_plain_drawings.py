"""mini-clip and a child's ten drawings, each to be named among twenty sentences.

The drawings were made for this test, once, and no model was trained on them. They are kept as SVG and as what it draws.
"""

from __future__ import annotations

from pathlib import Path

import minclip

PLAIN = Path(__file__).parent / "plain"
RIGHT = {
    "apple": "An apple.",
    "boat": "A boat.",
    "car": "A car.",
    "cat": "A cat.",
    "fish": "A fish.",
    "flower": "A flower.",
    "house": "A house.",
    "sun": "The sun.",
    "tree": "A tree.",
    "umbrella": "An umbrella.",
}
OTHERS = [
    "A dog.",
    "A bird.",
    "A horse.",
    "A banana.",
    "A book.",
    "A star.",
    "A plane.",
    "A chair.",
    "A guitar.",
    "A hat.",
]


def test_more_than_half_of_a_childs_drawings_are_named() -> None:
    sentences = [*RIGHT.values(), *OTHERS]
    pictures = [str(PLAIN / f"{name}.png") for name in RIGHT]
    answers = [ranking[0].label for ranking in minclip.load("mini-clip").zero_shot(pictures, sentences)]
    named = {name: answer for name, answer in zip(RIGHT, answers, strict=True) if answer == RIGHT[name]}
    assert len(named) > len(RIGHT) / 2, dict(zip(RIGHT, answers, strict=True))
