"""Words of other languages, found in the keywords of emoji."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minclip_torch.training.miniatures.lexicon import Lexicon, normal
from minclip_torch.training.miniatures.things import Annotations

EMOJI = "🌲🌳🌴🎄🍎🍏🍐⛵🚤🛶"
ENGLISH = {"tree": "🌲🌳🌴🎄", "apple": "🍎🍏", "fruit": "🍎🍏🍐", "boat": "⛵🚤🛶", "pear": "🍐", "green": "🌲🌳🍏🍐"}
FRENCH = {
    "arbre": "🌲🌳🌴🎄",
    "pomme": "🍎🍏",
    "fruit": "🍎🍏🍐",
    "bateau": "⛵🚤🛶",
    "poire": "🍐",
    "vert": "🌲🌳🍏🍐",
}


def annotations(emoji_of: Mapping[str, str | set[str]]) -> Annotations:
    """CLDR's layout, of words and the emoji whose keywords they are."""
    every = dict.fromkeys(emoji for own in emoji_of.values() for emoji in own)
    return {emoji: {"default": [word for word, own in emoji_of.items() if emoji in own]} for emoji in every}


def french(english: Mapping[str, str | set[str]], other: Mapping[str, str | set[str]], word: str) -> str | None:
    found = Lexicon({"en": annotations(english), "fr": annotations(other)})(word)
    return found["fr"][0] if found else None


@pytest.mark.parametrize(
    ("word", "expected"),
    [("tree", "arbre"), ("Trees", "arbre"), ("apples", "pomme"), ("fruit", "fruit"), ("boat", "bateau")],
)
def test_words_of_the_same_emoji_mean_the_same(word: str, expected: str) -> None:
    assert french(ENGLISH, FRENCH, word) == expected


def test_one_emoji_is_not_enough_to_go_by() -> None:
    assert french(ENGLISH, FRENCH, "pear") is None


def test_a_word_that_nobody_knows_has_no_translation() -> None:
    assert french(ENGLISH, FRENCH, "harpsichord") is None


def test_of_two_words_as_like_neither_is_taken() -> None:
    assert french(ENGLISH, FRENCH | {"navire": FRENCH["bateau"]}, "boat") is None
    assert french(ENGLISH | {"ship": ENGLISH["boat"]}, FRENCH, "boat") is None


def test_a_word_that_is_likelier_anothers_is_not_taken() -> None:
    """Three of the four emoji with "crown" have "king", too: "couronne" is the crown all the same."""
    english = {"crown": "🤴👸👑🫅", "king": "🤴🫅👑"}
    other = {"couronne": "🤴👸👑🫅"}
    assert french(english, other, "crown") == "couronne"
    assert french(english, other, "king") is None


def test_words_that_share_too_few_of_their_emoji_are_not_alike() -> None:
    assert french({"thing": "🌲🌳🍎🍏🍐⛵🚤"}, {"arbre": "🌲🌳🌴🎄"}, "thing") is None


def test_the_name_counts_as_the_keywords_do() -> None:
    known = {
        "en": {"🐕": {"tts": ["dog"]}, "🐶": {"default": ["dog"]}},
        "fr": {"🐕": {"tts": ["chien"]}, "🐶": {"default": ["chien"]}},
        "de": {"🐕": {"tts": ["Hund"]}, "🐶": {}},
    }
    assert Lexicon(known)("dog") == {"fr": ["chien"]}


def test_accents_are_compared_composed() -> None:
    known = {"en": annotations({"star": "⭐🌟"}), "fr": {"⭐": {"tts": ["étoile"]}, "🌟": {"tts": ["e\u0301toile"]}}}
    assert Lexicon(known)("star") == {"fr": ["étoile"]}


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=4, max_size=6).map(normal), st.sets(st.sampled_from(EMOJI)), max_size=8
    )
)
def test_a_language_that_says_the_same_is_understood(emoji_of: dict[str, set[str]]) -> None:
    """Every word has its translation where no other word of two emoji or more belongs to the same ones."""
    other = {f"{word}!": own for word, own in emoji_of.items()}
    lexicon = Lexicon({"en": annotations(emoji_of), "xx": annotations(other)})
    for word, own in emoji_of.items():
        alone = len(own) > 1 and sum(own == others for others in emoji_of.values()) == 1
        assert lexicon(word) == ({"xx": [f"{word}!"]} if alone else {})


@pytest.mark.parametrize(
    ("word", "expected"),
    [("Cherries", "cherry"), ("buses", "buse"), ("glasses", "glasses"), ("bus", "bus"), ("wine-glass", "wine glass")],
)
def test_names_are_compared_in_the_singular(word: str, expected: str) -> None:
    assert normal(word) == expected
