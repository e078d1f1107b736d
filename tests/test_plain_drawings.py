"""A child's ten drawings, each to be named among twenty sentences, in English and in French.

The drawings were made for this test, once, and no model was trained on them. They are kept as SVG and as what it draws.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import minclip

PLAIN = Path(__file__).parent / "plain"
NAMES = ["apple", "boat", "car", "cat", "fish", "flower", "house", "sun", "tree", "umbrella"]
RIGHT = {
    "en": "An apple. A boat. A car. A cat. A fish. A flower. A house. The sun. A tree. An umbrella.",
    "fr": "Une pomme. Un bateau. Une voiture. Un chat. Un poisson. Une fleur. Une maison. Le soleil. Un arbre. "
    "Un parapluie.",
}
OTHERS = {
    "en": "A dog. A bird. A horse. A banana. A book. A star. A plane. A chair. A guitar. A hat.",
    "fr": "Un chien. Un oiseau. Un cheval. Une banane. Un livre. Une étoile. Un avion. Une chaise. Une guitare. "
    "Un chapeau.",
}


@pytest.mark.parametrize(
    ("model", "language"), [("mini-clip", "en"), ("mini-metaclip-2", "en"), ("mini-metaclip-2", "fr")]
)
def test_more_than_half_of_a_childs_drawings_are_named(model: str, language: str) -> None:
    right, others = ([f"{text}." for text in table[language].rstrip(".").split(". ")] for table in (RIGHT, OTHERS))
    assert len(right) == len(NAMES) == len(others)
    pictures = [str(PLAIN / f"{name}.png") for name in NAMES]
    rankings = minclip.load(model).zero_shot(pictures, [*right, *others])
    answers = dict(zip(right, (ranking[0].label for ranking in rankings), strict=True))
    named = [sentence for sentence, answer in answers.items() if answer == sentence]
    assert len(named) > len(NAMES) / 2, answers
