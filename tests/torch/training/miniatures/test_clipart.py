"""Clip art: which drawings are kept, what they are called, and how they are cleaned."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from minclip_torch.training.miniatures import clipart
from minclip_torch.training.miniatures.clipart import clip_art
from minclip_torch.training.miniatures.drawing import pixels, redraw
from minclip_torch.training.miniatures.packages import PicturesError
from minclip_torch.training.miniatures.things import Drawn
from minclip_torch.training.miniatures.wordnet import Nouns

WORDS = {"dog": "05", "bird": "05", "cane": "06", "apple": "13", "tree": "20", "wagon": "06", "hot dog": "13"}
WORDS |= {"book": "06", "freedom": "07", "platter": "06", "turkey": "13", "fish": "05", "mute": "18", "wooden": "07"}
DISC = '<circle cx="50" cy="50" r="40" style="fill:#e02020;stroke:#000;stroke-width:1.5pt"/>'


@pytest.fixture(scope="module")
def nouns() -> Nouns:
    data = "".join(f"{i:08} {file} n 01 {w.replace(' ', '_')} 0 000 | x\n" for i, (w, file) in enumerate(WORDS.items()))
    index = "".join(f"{w.replace(' ', '_')} n 1 0 1 0 {i:08}\n" for i, w in enumerate(WORDS))
    return Nouns(index, data)


def svg(
    title: str = "Dog", keywords: tuple[str, ...] = (), body: str = DISC, size: str = 'viewBox="0 0 100 100"'
) -> str:
    """A document as the collection has them, its metadata nested as there."""
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return f"""<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:cc="http://web.resource.org/cc/"
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" {size}><metadata><rdf:RDF><cc:Work rdf:about="">
<dc:title>{title}</dc:title><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
<dc:creator><cc:Agent><dc:title>Ann Apple</dc:title></cc:Agent></dc:creator></cc:Work></rdf:RDF>
</metadata>{body}</svg>"""


def kept(folder: Path, files: dict[str, str], nouns: Nouns) -> tuple[list[Drawn], Counter[str]]:
    for place, text in files.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(text)
    dropped: Counter[str] = Counter()
    return list(clip_art(folder, nouns, dropped)), dropped


@pytest.mark.parametrize(
    ("place", "title", "keywords", "names"),
    [
        ("a.svg", "Dog", (), ("dog",)),
        ("a.svg", "Dog 01", ("animal", "dog", "bird"), ("dog", "bird")),
        ("a.svg", "simple_cartoon_dog (B and W)", (), ("dog",)),
        ("a.svg", "Hot Dog", (), ("hot dog",)),
        ("a.svg", "Dog, Simple", (), ("dog",)),
        ("a.svg", "architetto -- dog", (), ("dog",)),
        ("a.svg", "Cane", (), ("cane",)),
        ("a.svg", "Gatto di notte", (), ("cat",)),
        ("a.svg", "Turkey on Platter", (), ("turkey",)),
        ("a.svg", "Stack of Books", (), ("stack of books",)),
        ("wagon_ann_apple_01.svg", "Various Cliparts", (), ("wagon",)),
        ("dog.svg", "", (), ("dog",)),
        ("animals/birds/zzz.svg", "Zzz", (), ("bird",)),
    ],
)
def test_the_name_is_the_thing(
    tmp_path: Path, nouns: Nouns, place: str, title: str, keywords: tuple[str, ...], names: tuple[str, ...]
) -> None:
    (drawn,), _ = kept(tmp_path, {place: svg(title, keywords)}, nouns)
    assert drawn.names == names
    assert drawn.artist == "clip-art"


@pytest.mark.parametrize(
    ("place", "title", "keywords"),
    [
        ("a.svg", "Freedom", ()),
        ("a.svg", "", ()),
        ("a.svg", "17", ("4", "x")),
        ("a.svg", "Map of Dogs", ()),
        ("a.svg", "Dog", ("logo",)),
        ("shapes/arrows/dog.svg", "Dog", ()),
        ("zzz_ann_apple_01.svg", "Zzz", ()),  # an author's name is no apple
    ],
)
def test_what_has_no_name_or_shows_no_thing_is_dropped(
    tmp_path: Path, nouns: Nouns, place: str, title: str, keywords: tuple[str, ...]
) -> None:
    assert kept(tmp_path, {place: svg(title, keywords)}, nouns) == ([], {"no thing with a name": 1})


BOMB = '<!DOCTYPE svg [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]>'
HOSTILE = {
    "broken XML": svg()[:-9],
    "declares entities": svg().replace('<?xml version="1.0"?>', BOMB),
    "no SVG": "<html/>",
    "is blank": svg(body='<circle r="9" fill="none"/>'),
    "holds a bitmap": svg(body=DISC + '<image href="data:image/png;base64,AAAA" width="9" height="9"/>'),
    "styled by class": svg(body=f"<style>.a {{ fill: red }}</style>{DISC}"),
    "too large": svg(body=DISC + "<!--" + "x" * clipart.LARGEST + "-->"),
    "too many elements": svg(body=DISC * (clipart.MOST + 1)),
    "has no size": svg(size='width="100%" height="100%"'),
    "cannot be drawn": svg(body=DISC + '<circle r="3" opacity="much"/>'),
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_what_cannot_be_drawn_is_left_out_and_counted(tmp_path: Path, nouns: Nouns, reason: str) -> None:
    drawings, dropped = kept(tmp_path, {"dog.svg": HOSTILE[reason], "tree.svg": svg("Tree")}, nouns)
    assert [drawn.names for drawn in drawings] == [("tree",)]
    assert dropped == {reason: 1}


def test_a_copy_is_left_out_and_the_same_file_name_gets_a_key_of_its_own(tmp_path: Path, nouns: Nouns) -> None:
    other = svg(body=DISC.replace("#e02020", "blue"))
    files = {"a/Dog 1_.svg": svg(), "b/Dog 1_.svg": svg(), "c/Dog 1_.svg": other}
    drawings, dropped = kept(tmp_path, files, nouns)
    assert [drawn.key for drawn in drawings] == ["dog-1", "dog-1--2"]
    assert dropped == {"another's copy": 1}


@pytest.mark.parametrize(
    "size",
    ['width="200" height="100"', 'width="2in" height="100px"', 'viewBox="0,0 200,100"', 'viewBox="-9 0 500 900"'],
)
def test_a_drawing_gets_a_square_around_what_is_drawn(tmp_path: Path, nouns: Nouns, size: str) -> None:
    (drawn,), _ = kept(tmp_path, {"dog.svg": svg(size=size)}, nouns)
    left, top, width, height = (float(number) for number in ElementTree.fromstring(drawn.svg).attrib["viewBox"].split())
    assert width == height
    assert abs(left + width / 2 - 50) < 8
    assert abs(top + width / 2 - 50) < 8
    alpha = np.asarray(pixels(drawn.svg, 50))[..., 3]
    assert alpha.any(0).sum() > 40
    assert not alpha[0].any()  # with a margin


def test_a_drawing_that_declares_no_namespace_is_drawn_all_the_same(tmp_path: Path, nouns: Nouns) -> None:
    drawings, _ = kept(tmp_path, {"dog.svg": f'<svg viewBox="0 0 100 100">{DISC}</svg>'}, nouns)
    assert [drawn.names for drawn in drawings] == [("dog",)]


def test_what_an_editor_keeps_for_itself_is_left_out(tmp_path: Path, nouns: Nouns) -> None:
    body = f'<switch><foreignObject width="1" height="1"><i xmlns="urn:x"/></foreignObject><g>{DISC}</g></switch>'
    (drawn,), _ = kept(tmp_path, {"dog.svg": svg(body=body)}, nouns)
    assert "foreignObject" not in drawn.svg


def test_metadata_is_gone_and_pens_are_plain_numbers(tmp_path: Path, nouns: Nouns) -> None:
    (drawn,), _ = kept(tmp_path, {"dog.svg": svg()}, nouns)
    assert "Ann Apple" not in drawn.svg
    assert "stroke-width:1.875" in drawn.svg
    for style in ("plain", "ink", "line"):
        assert np.asarray(pixels(redraw(drawn.svg, style, 3), 32))[..., 3].any()


def test_a_path_that_holds_no_drawings_is_refused(tmp_path: Path, nouns: Nouns) -> None:
    with pytest.raises(PicturesError, match=r"holds no SVG: name openclipart-svg's \.deb, or its folder usr/share"):
        list(clip_art(tmp_path, nouns))
