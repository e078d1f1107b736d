"""The exam from elsewhere, made from a folder of stamps that are made up, some of them broken."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import triangles
from PIL import Image

from minclip_torch.training.entries import read_entries
from minclip_torch.training.miniatures import elsewhere
from minclip_torch.training.miniatures.elsewhere import read_captions, stamps

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="4cm" height="2cm"><circle cx="30" cy="30" r="20" fill="{}"/></svg>'
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four stamps that count, and what does not: a sign, a flag, a mirror image, and what has no English."""
    root = tmp_path / "stamps"
    texts = {
        "animals/dog": "A dog.\nfr.utf8=Un chien.\npt.utf8=Um cão.\npt_BR.utf8=Um cachorro.\n",
        "animals/cat_mirror": "A cat.\n",
        "food/pie": "\ufeffA  pie. \r\nfr.utf8=\\tUne  tarte.\r\nzh_CN.utf8=馅饼\r\nzh_TW.utf8=派\r\nxx.utf8=X\r\n",
        "town/house": "A house.\npt_BR.utf8=Uma casa.\nfr.utf8=\nde.utf8=  \nno equals sign\n",
        "town/flags/france": "France.\n",
        "town/roadsigns/stop": "Stop!\n",
        "symbols/math/plus": "Plus.\n",
        "town/nameless": "",
        "town/blank": "  \nfr.utf8=Rien.\n",
        "town/french": "fr.utf8=Une tour.\n",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.txt").write_bytes(text.encode())
        triangles(list(texts).index(name) + 1).save(root / f"{name}.png")
    triangles(0).save(root / "town" / "no_text.png")
    (root / "food" / "egg.svg").write_text(SVG.format("gold"), encoding="utf-8")
    (root / "food" / "egg.txt").write_text("An egg.\n", encoding="utf-8")
    (root / "food" / "pie.svg").write_text("the PNG of the same name is taken", encoding="utf-8")
    return root


def make(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """Make the exam at tmp_path/out/elsewhere; what was said."""
    assert elsewhere.main([str(tmp_path / "out" / "elsewhere"), *map(str, words)]) == code
    out, err = capsys.readouterr()
    said = [line for line in (out + err).splitlines() if not line.startswith("fetching")]
    assert code == 0 or len(said) == 1
    return "\n".join(said)


def left(tmp_path: Path) -> list[str]:
    """What lies where the exam was to be made, the archive apart."""
    out = tmp_path / "out"
    return sorted(path.name for path in out.iterdir() if path.name != "packages") if out.exists() else []


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    exam = tmp_path / "out" / "elsewhere" / "elsewhere.jsonl"
    return [json.loads(line) for line in exam.read_text(encoding="utf-8").splitlines()]


def test_things_are_asked_for_and_signs_mirror_images_and_the_nameless_are_not(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = make(tmp_path, capsys, "--stamps", root)
    assert said.endswith("elsewhere: 4 pictures, 4 different sentences in English")
    found = lines(tmp_path)
    assert [line["name"] for line in found] == ["animals/dog", "food/egg", "food/pie", "town/house"]
    assert [line["sets"] for line in found] == [["animals"], ["food"], ["food"], ["town"]]
    drawn = [path for entry in read_entries(tmp_path / "out/elsewhere/elsewhere.jsonl") for path in entry.images]
    assert set(drawn) == set((tmp_path / "out" / "elsewhere").rglob("*.png"))
    assert left(tmp_path) == ["elsewhere"]


def test_captions_are_the_stamps_own_sentences(root: Path) -> None:
    dog, _, pie, house = stamps(root)
    assert dog.captions == {"en": "A dog.", "fr": "Un chien.", "pt": "Um cão."}
    assert pie.captions == {"en": "A pie.", "fr": "Une tarte.", "zh": "馅饼"}
    assert house.captions == {"en": "A house.", "pt": "Uma casa."}


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        ("", {}),
        ("\n\n", {}),
        ("A sum: 6x7=42.", {"en": "A sum: 6x7=42."}),
        ("fr.utf8=Un e\u0301te\u0301.", {"fr": "Un été."}),
        ("A.\nfr.utf8=1=1.", {"en": "A.", "fr": "1=1."}),
        ("A.\nfr=latin-1", {"en": "A."}),
        ("A.\nen.utf8=B.", {"en": "B."}),
    ],
)
def test_a_texts_lines_are_languages(text: str, captions: dict[str, str]) -> None:
    assert read_captions(text) == captions


def test_pictures_fill_a_transparent_square_and_keep_their_shape(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", (10, 40), "red").save(root / "animals" / "dog.png")  # a bar, upright
    Image.new("P", (16, 4)).save(root / "town" / "house.png")  # a flat one, with a palette, and opaque
    make(tmp_path, capsys, "--stamps", root)
    boxes = {}
    for line in lines(tmp_path):
        with Image.open(tmp_path / "out" / "elsewhere" / line["images"][0]) as image:
            assert (image.size, image.mode) == ((128, 128), "RGBA")
            boxes[line["name"]] = image.getchannel("A").getbbox()
    assert boxes["animals/dog"] == (48, 0, 80, 128)
    assert boxes["town/house"] == (0, 48, 128, 80)
    left_, top, right, bottom = boxes["food/egg"]
    assert right - left_ == bottom - top  # the circle is round in a picture twice as wide as high


def test_what_is_white_on_white_is_no_question(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGBA", (50, 50), "white").save(root / "animals" / "dog.png")
    make(tmp_path, capsys, "--stamps", root)
    assert "animals/dog" not in [line["name"] for line in lines(tmp_path)]


def test_what_looks_like_a_picture_trained_on_is_left_out(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "out" / "drawings"
    trained.mkdir(parents=True)
    with Image.open(root / "animals" / "dog.png") as dog:
        dog.resize((96, 80)).save(trained / "dog.png")
    (trained / "train.jsonl").write_text(json.dumps({"images": ["dog.png"], "captions": ["dog"]}), encoding="utf-8")
    said = make(tmp_path, capsys, "--stamps", root)
    assert f"look like pictures of {trained / 'train.jsonl'}: 1\n" in said
    assert [line["name"] for line in lines(tmp_path)] == ["food/egg", "food/pie", "town/house"]
    assert not (tmp_path / "out" / "elsewhere" / "animals" / "dog.png").exists()


def test_an_exam_that_is_all_trained_on_is_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, capsys, "--stamps", root)
    made = tmp_path / "out" / "elsewhere"
    trained = made.rename(tmp_path / "trained") / "elsewhere.jsonl"
    said = make(tmp_path, capsys, "--stamps", root, "--train", trained, code=1)
    assert "no stamp is left that is not trained on" in said
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "animals/dog.txt",
            "Ein Hündchen.".encode("latin-1"),
            "dog.txt is no text in UTF-8 (invalid start byte at byte 5",
        ),
        ("animals/dog.png", b"\x89PNG\r\n\x1a\n", "dog.png cannot be drawn: "),
        ("animals/dog.png", b"", "dog.png cannot be drawn: "),
        ("food/egg.svg", b"<svg", "egg.svg cannot be drawn: "),
        ("food/egg.svg", b"\xff\xfe", "egg.svg cannot be drawn: "),
    ],
)
def test_a_broken_stamp_is_named_and_nothing_is_left(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, message: str
) -> None:
    (root / name).write_bytes(content)
    said = make(tmp_path, capsys, "--stamps", root, code=1)
    assert said.startswith("minclip: ")
    assert message in said
    assert left(tmp_path) == []


def test_a_png_that_is_cut_short_is_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(256, size=(60, 60, 4), dtype=np.uint8)
    Image.fromarray(noise).save(root / "animals" / "dog.png")
    whole = (root / "animals" / "dog.png").read_bytes()
    (root / "animals" / "dog.png").write_bytes(whole[: len(whole) // 2])
    assert "dog.png cannot be drawn: " in make(tmp_path, capsys, "--stamps", root, code=1)
    assert left(tmp_path) == []


def test_an_exam_that_is_there_is_not_touched(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out" / "elsewhere").mkdir(parents=True)
    assert "is there already: name another folder" in make(tmp_path, capsys, "--stamps", root, code=1)


def test_a_folder_without_stamps_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty holds no pictures with texts" in make(tmp_path, capsys, "--stamps", tmp_path / "empty", code=1)
    assert "gone" in make(tmp_path, capsys, "--stamps", tmp_path / "gone.deb", code=1)


# --- the package -----------------------------------------------------------------------------------------------------


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the PATH's first, where `apt-get` and `dpkg-deb` can be put."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.defpath}")
    return folder


def command(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def package(root: Path, tmp_path: Path, apt: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of the stamps, with its digest; a stand-in for dpkg-deb unpacks it."""
    tree = tmp_path / "tree"
    shutil.copytree(root, tree / elsewhere.PACKAGE.inside)
    archive = tmp_path / "stamps.deb"
    subprocess.run(["tar", "-cf", archive, "-C", tree, "."], check=True)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(elsewhere, "PACKAGE", replace(elsewhere.PACKAGE, sha256=digest))
    command(apt / "dpkg-deb", 'mkdir -p "$3" && tar -xf "$2" -C "$3"')
    return archive


def test_the_package_is_fetched_once(
    package: Path, apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(apt / "apt-get", f'test "$1 $2" = "download tuxpaint-stamps-default=2022.06.04-1" && cp "{package}" .')
    assert "4 pictures" in make(tmp_path, capsys)
    shutil.rmtree(tmp_path / "out" / "elsewhere")
    command(apt / "apt-get", "exit 9")
    assert "4 pictures" in make(tmp_path, capsys)


def test_the_package_may_lie_elsewhere(package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "4 pictures" in make(tmp_path, capsys, "--stamps", package)


def test_a_package_that_cannot_be_fetched_leaves_nothing(
    package: Path, apt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(apt / "apt-get", "exit 3")
    assert "apt-get could not fetch tuxpaint-stamps-default" in make(tmp_path, capsys, code=1)
    assert left(tmp_path) == []
