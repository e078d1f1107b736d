"""The command line, called as a user calls it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minclip
from minclip.cli import main
from minclip.miniature import captions, draw


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    for colour in ("red", "blue"):
        draw(f"a {colour} circle", rng, side=64).save(folder / f"{colour}.png")
    return folder


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out, err


def test_zero_shot_prints_clean_lines_when_piped(
    miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, err = run(
        "zero-shot", pictures / "red.png", "--labels", *captions(), "--model", miniature, "--top-k", 2, capsys=capsys
    )
    rows = [line.split("\t") for line in out.splitlines()]
    expected = minclip.zero_shot(pictures / "red.png", captions(), model=miniature, top_k=2)
    assert [(row[0], row[2]) for row in rows] == [(str(pictures / "red.png"), p.label) for p in expected]
    assert [float(row[1]) for row in rows] == pytest.approx([p.score for p in expected], abs=1e-6)
    assert err == ""


def test_zero_shot_speaks_json(miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [pictures / "red.png", pictures / "blue.png"]
    words = ["a red circle", "a blue circle"]
    out, _ = run("zero-shot", *images, "--labels", *words, "--model", miniature, "--json", capsys=capsys)
    best = [json.loads(line)["predictions"][0]["label"] for line in out.splitlines()]
    assert best == words


def test_templates_are_applied(miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(
        "zero-shot", pictures / "red.png", "--labels", "red", "blue", "--template", "a {} circle", "--model", miniature,
        "--json", capsys=capsys,
    )  # fmt: skip
    expected = minclip.zero_shot(pictures / "red.png", ["red", "blue"], model=miniature, template="a {} circle")
    assert json.loads(out)["predictions"][0]["label"] == expected[0].label == "red"


def test_a_person_sees_bars(miniature: Path, pictures: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "minclip.cli", "zero-shot", str(pictures / "red.png"), "--labels", "a red circle"]
    subprocess.run([*command, "a blue circle", "--model", str(miniature)], stdout=follower, check=True, timeout=60)
    os.close(follower)
    shown = os.read(leader, 10_000).decode()
    os.close(leader)
    assert "█" in shown
    assert "a red circle" in shown.splitlines()[1]


def test_an_unreadable_picture_is_reported_and_the_rest_goes_on(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    images = [tmp_path / "broken.png", pictures / "red.png"]
    out, err = run("zero-shot", *images, "--labels", "a", "b", "--model", miniature, code=1, capsys=capsys)
    assert len(out.splitlines()) == 2
    assert "broken.png" in err
    assert "1 of 2" in err


def test_embed_writes_what_encode_image_gives(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("not even named like one")
    out = tmp_path / "out.npz"
    _, err = run("embed", pictures, tmp_path, "-o", out, "--model", miniature, code=1, capsys=capsys)
    with np.load(out) as saved:
        paths, embeds = list(saved["paths"]), saved["embeds"]
    assert paths == [str(pictures / "blue.png"), str(pictures / "red.png")]
    np.testing.assert_array_equal(embeds, minclip.load(miniature).encode_image(paths))
    assert "broken.jpg" in err
    assert "notes.txt" not in err
    assert not list(tmp_path.glob("*.partial"))


def test_embed_of_nothing_readable_writes_nothing(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    run("embed", tmp_path, "-o", tmp_path / "out.npz", "--model", miniature, code=2, capsys=capsys)
    assert not (tmp_path / "out.npz").exists()


def test_info_counts_the_parameters(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("info", miniature, capsys=capsys)
    total = sum(tensor.size for tensor in minclip.load(miniature).weights.values())
    assert f"{total:,}" in out
    assert "model.safetensors" in out


def test_backends_lists_numpy_and_torch(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("backends", capsys=capsys)
    listed = {line.split()[0]: line for line in out.splitlines()}
    assert listed["numpy"].split()[1] == "cpu"
    assert "cpu" in listed["torch"]


def test_demo_gets_the_colours_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("demo", "--keep", tmp_path, capsys=capsys)
    first = {line.split("\t")[0]: line.split("\t")[2] for line in reversed(out.splitlines()) if "\t" in line}
    assert {name.split("-")[1]: label.split()[1] for name, label in first.items()} == {
        "red": "red", "blue": "blue", "yellow": "yellow",
    }  # fmt: skip
    assert minclip.load(tmp_path).config.model_type == "clip"


def test_diff_finds_no_difference_to_torch(miniature: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run("diff", miniature, "--backend", "torch", "--device", "cpu", "--text", "a red circle", capsys=capsys)
    assert "agrees" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("info", "no/such/folder/here"), "no/such/folder/here"),
        (("info", "nowhere"), "nowhere"),
        (("zero-shot", "x.png", "--labels", "a"), "no model was named"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--backend", "abacus"), "no backend 'abacus'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--device", "cuda"), "no device 'cuda'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--dtype", "int8"), "'int8'"),
        (("zero-shot", "x.png", "--labels", "a", "--model", "MINIATURE", "--template", "photo"), "template 'photo'"),
        (("embed", "EMPTY", "-o", "out.npz", "--model", "MINIATURE"), "holds no picture files"),
        (("embed", "x.png", "-o", "no/folder/out.npz", "--model", "MINIATURE"), "not a folder"),
    ],
)
def test_errors_are_one_line(
    words: tuple[str, ...], said: str, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = {"MINIATURE": str(miniature), "EMPTY": str(tmp_path)}
    _, err = run(*(real.get(word, word) for word in words), code=2, capsys=capsys)
    assert said in err
    assert err.startswith("minclip: ")
    assert len(err.splitlines()) == 1
