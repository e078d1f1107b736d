"""`minclip index` and `minclip search`, called as a user calls them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from miniature import captions, draw

from minclip.commands.cli import main
from minclip.search.index import Index


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, caption in enumerate(captions()):
        draw(caption, np.random.default_rng(number), side=48).save(folder / f"{caption}.png")
    return folder


@pytest.fixture
def made(photos: Path, miniature: Path, tmp_path: Path) -> Path:
    Index.build(photos, tmp_path / "p.idx", model=miniature)
    return tmp_path / "p.idx"


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_index_counts_what_it_did(photos: Path, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw("a red circle", np.random.default_rng(99)).save(photos / "new.png")
    out, err = run("index", photos, "-o", made, capsys=capsys)
    assert out == ""
    assert err == f"{made}: 1 added, 0 changed, 0 renamed, 0 removed, 12 unchanged\n"


def test_index_ends_with_1_where_something_cannot_be_read(
    photos: Path, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "bad.png").write_bytes(b"")
    _, err = run("index", photos, "-o", made, code=1, capsys=capsys)
    assert err.splitlines()[0].startswith(f"minclip: left out: {photos / 'bad.png'} is not an image")
    assert len(Index.open(made)) == 12


def test_search_prints_paths_alone_when_piped(made: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["search", str(made), "a", "red", "circle", "--top-k", "3"]) == 0
    expected = [os.fsencode(match.path) for match in Index.open(made).search("a red circle", 3)]
    assert capfdbinary.readouterr().out.splitlines() == expected


def test_a_sum_on_the_command_line_is_the_sum_in_python(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = Index.open(made)
    words = ["2:a red circle", "+", index.paths[0], "-", "a blue square"]
    out, _ = run("search", made, *words, "--json", "--top-k", 5, capsys=capsys)
    found = [json.loads(line) for line in out.splitlines()]
    expected = index.search(words, 5)
    assert [each["path"] for each in found] == [match.path for match in expected]
    assert [each["score"] for each in found] == pytest.approx([match.score for match in expected])


def test_the_contact_sheet_needs_no_other_file(
    photos: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(photos) + b"/<b>&\"'\xff.png")
    (photos / f"{captions()[0]}.png").rename(odd)
    run("index", photos, "-o", made, capsys=capsys)
    index = Index.open(made)
    os.unlink(index.paths[3])
    page = tmp_path / "s.html"
    run("search", made, "<i>circle", "-", index.paths[1], "--html", page, "--top-k", 50, capsys=capsys)
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(links) == 12 + 11 + 1  # pictures found, thumbnails of those that are still there, one in the query
    assert all(link.startswith(("data:image/jpeg;base64,", "file:///")) for link in links)
    assert {Path(os.fsdecode(link)).name for link in links if link.startswith("file")} >= {"%3Cb%3E%26%22%27%FF.png"}
    assert "&lt;i&gt;circle" in text
    assert "<i>circle" not in text
    assert '<b>&"' not in text
    assert not re.search(r"https?://|@import|url\(", text)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no.idx", "a dog"], "no.idx is not an index; make one with minclip index FOLDER -o no.idx"),
        (["p.idx", "missing.jpg"], "cannot open image missing.jpg: No such file or directory"),
        (["p.idx", "a dog", "+"], "has an empty term"),
        (["p.idx", "a dog", "-", "a dog"], "cancel out"),
        (["p.idx", "a dog", "--model", "mini-clip"], "is another model"),
        (["p.idx", "a dog", "--top-k", "0"], "top_k"),
        (["p.idx", "a dog", "--html", "no/s.html"], "no is not a folder"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], line: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made.parent)
    out, err = run("search", *words, code=2, capsys=capsys)
    assert out == ""
    lines = [each for each in err.splitlines() if "bundled" not in each]
    assert len(lines) == 1
    assert lines[0].startswith("minclip: ")
    assert line in lines[0]


@pytest.mark.parametrize("where", ["a file", "a folder of something else", "no such folder"])
def test_an_index_goes_nowhere_else(
    where: str, photos: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    target = {"a file": tmp_path / "file", "a folder of something else": photos, "no such folder": tmp_path / "a" / "b"}
    _, err = run("index", photos, "-o", target[where], "--model", miniature, code=2, capsys=capsys)
    assert err.count("\n") == 1
    assert (tmp_path / "file").read_bytes() == b"x"


def test_ctrl_c_keeps_what_was_indexed(photos: Path, made: Path) -> None:
    draw("a red circle", np.random.default_rng(99)).save(photos / "new.png")
    program = (
        "import sys, minclip.commands.cli as cli, minclip.search.build as build\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "build.Store.commit = stop\nsys.exit(cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "index", str(photos), "-o", str(made)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert len(Index.open(made)) == 12
