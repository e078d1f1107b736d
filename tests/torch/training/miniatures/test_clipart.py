"""Clip art: which drawings are kept, what they are called, and how they are cleaned."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from minclip_torch.training.miniatures import clipart
from minclip_torch.training.miniatures.clipart import ClipArtError, clip_art, fetch
from minclip_torch.training.miniatures.drawing import pixels, redraw
from minclip_torch.training.miniatures.nouns import Nouns
from minclip_torch.training.miniatures.things import Drawn

WORDS = {"dog": "05", "bird": "05", "cane": "06", "apple": "13", "tree": "20", "wagon": "06", "hot dog": "13"}
WORDS |= {"book": "06", "freedom": "07", "platter": "06", "turkey": "13", "fish": "05", "mute": "18", "wooden": "07"}
DISC = '<circle cx="50" cy="50" r="40" style="fill:#e02020;stroke:#000;stroke-width:1.5pt"/>'


@pytest.fixture(scope="module")
def nouns(tmp_path_factory: pytest.TempPathFactory) -> Nouns:
    data = "".join(f"{i:08} {file} n 01 {w.replace(' ', '_')} 0 000 | x\n" for i, (w, file) in enumerate(WORDS.items()))
    index = "".join(f"{w.replace(' ', '_')} n 1 0 1 0 {i:08}\n" for i, w in enumerate(WORDS))
    path = tmp_path_factory.mktemp("words") / "wordnet.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in (("data.noun", data), ("index.noun", index)):
            member = tarfile.TarInfo(f"package/dict/{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return Nouns(path)


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


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_the_package_is_read_as_its_folder_is(tmp_path: Path, nouns: Nouns) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text("Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n")
    folder, _ = kept(tree / clipart.INSIDE, {"dog.svg": svg(), "tree.svg": svg("Tree")}, nouns)
    subprocess.run(["dpkg-deb", "-b", tree, tmp_path / "x.deb"], check=True, capture_output=True)
    assert list(clip_art(tmp_path / "x.deb", nouns)) == folder


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_deb_that_is_none_is_refused_in_one_line(tmp_path: Path, nouns: Nouns) -> None:
    (tmp_path / "x.deb").write_bytes(b"none")
    with pytest.raises(ClipArtError, match=r"x\.deb is no Debian package .*: delete it and fetch it again") as error:
        list(clip_art(tmp_path / "x.deb", nouns))
    assert "\n" not in str(error.value)


def test_without_dpkg_deb_the_way_out_is_named(tmp_path: Path, nouns: Nouns, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.deb").write_bytes(b"none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ClipArtError, match=r"dpkg-deb, which unpacks .* is not installed: unpack it and give the folder"
    ):
        list(clip_art(tmp_path / "x.deb", nouns))


def test_a_path_that_holds_no_drawings_is_refused(tmp_path: Path, nouns: Nouns) -> None:
    with pytest.raises(ClipArtError, match="holds no SVG"):
        list(clip_art(tmp_path, nouns))
    with pytest.raises(ClipArtError, match=r"is not there: give openclipart-svg's \.deb"):
        list(clip_art(tmp_path / "absent", nouns))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'E: no network' >&2; exit 100", r"apt-get could not fetch .* \(E: no network\): put .*_all\.deb into "),
        ("exit 0", "apt-get could not fetch"),
        ("echo none > x.deb", "is not what Debian publishes as .*: delete it and run again"),
        (None, r"apt-get is not installed: put Debian's .*_all\.deb into "),
    ],
)
def test_what_apt_cannot_fetch_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, message: str
) -> None:
    (tmp_path / "bin").mkdir()
    if script is not None:
        (tmp_path / "bin/apt-get").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin/apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}" + (f"{os.pathsep}/bin" if script else ""))
    with pytest.raises(ClipArtError, match=message) as error:
        fetch(tmp_path / "packages")
    assert "\n" not in str(error.value)


def test_a_package_that_is_there_is_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    name = f"openclipart-svg_{clipart.VERSION.replace(':', '%3a')}_all.deb"
    (tmp_path / name).write_bytes(b"the package")
    monkeypatch.setattr(clipart, "SHA256", hashlib.sha256(b"the package").hexdigest())
    assert fetch(tmp_path) == tmp_path / name
