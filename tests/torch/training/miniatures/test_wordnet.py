"""The nouns of WordNet: what is a thing in a title, and what is none. What names mean: test_miniature_pictures.py."""

from __future__ import annotations

import pytest

from minclip_torch.training.miniatures.wordnet import Nouns

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by\n"
DATA = """\
00000001 05 n 01 canine 0 000 | a beast
00000002 05 n 02 dog 0 Canis_familiaris 0 001 @ 00000001 n 0000 | barks | loudly
00000003 18 n 01 Dog 0 001 @i 00000001 n 0000 | somebody's name
00000004 07 n 01 freedom 0 000 | not being bound
00000005 06 n 01 glass 0 000 | to drink from
00000006 13 n 02 hot_dog 0 red_hot 0 001 @ 00000005 n 0000 | in a bun
00000007 18 n 01 Nelson 0 000 | an admiral
00000008 19 n 01 weather 0 000 | rains
00000009 06 n 01 freedom 0 000 | a ship, very seldom
00000010 04 n 01 freedom 0 000 | an act
"""
INDEX = """\
canine n 1 0 1 0 00000001
dog n 2 1 @ 2 1 00000003 00000002
freedom n 3 0 3 0 00000004 00000010 00000009
glass n 1 0 1 0 00000005
hot_dog n 1 1 @ 1 0 00000006
nelson n 1 0 1 0 00000007
weather n 1 0 1 0 00000008
"""
NOUNS = Nouns(LICENCE + INDEX, LICENCE + DATA)


@pytest.mark.parametrize("word", ["dog", "dogs", "Dogs", "glass", "glasses", "hot dog", "hot dogs"])
def test_things_are_known_in_singular_and_plural(word: str) -> None:
    assert any(NOUNS.things(word))


@pytest.mark.parametrize("word", ["freedom", "weather", "nelson", "doggish", "", "s", "hot", "01"])
def test_what_cannot_be_seen_and_what_is_a_name_is_no_thing(word: str) -> None:
    assert not any(NOUNS.things(word))


def test_senses_that_are_names_are_left_out_and_so_are_rare_ones() -> None:
    assert NOUNS.things("dog") == (True,)  # "Dog" comes first in the index
    assert NOUNS.things("freedom") == (False, False)  # the ship is the third


def test_the_singular_is_as_the_list_has_it() -> None:
    assert [NOUNS.singular(word) for word in ("dogs", "glasses", "Hot dogs", "nelson", "x")] == [
        "dog", "glass", "hot dog", None, None,
    ]  # fmt: skip
