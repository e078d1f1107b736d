"""`minclip zero-shot`: rankings for people and for programs, from labels given in every way."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import command, damaged, on_terminal, run
from miniature import captions
from PIL import Image

import minclip
from minclip.commands import zero_shot
from minclip.commands.cli import main
from minclip.inputs import text_inputs


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
    words = "zero-shot", pictures / "red.png", "--labels", "a red circle", "a blue circle", "--model", miniature
    shown = on_terminal(*words, stream="stdout")
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


def test_pictures_are_ranked_in_chunks_as_one_by_one_and_labels_are_embedded_once(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = []
    monkeypatch.setattr(
        "minclip.model.text_inputs",
        lambda config, **given: embedded.append(len(given["input_ids"])) or text_inputs(config, **given),
    )
    monkeypatch.setattr(zero_shot, "AT_A_TIME", 2)
    missing = tmp_path / "missing.png"
    images = [pictures / "red.png", missing, missing, missing, pictures / "blue.png", pictures / "red.png"]
    words = ["a red circle", "a blue circle"]
    out, err = run("zero-shot", *images, "--labels", *words, "--model", miniature, "--json", code=1, capsys=capsys)
    assert embedded == [len(words)]
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["image"] for line in lines] == [str(path) for path in images]
    assert all(str(missing) in line["error"] for line in lines[1:4])
    for line in (line for line in lines if line["image"] != str(missing)):
        expected = minclip.zero_shot(line["image"], words, model=miniature)
        assert [p["label"] for p in line["predictions"]] == [p.label for p in expected]
        assert [p["score"] for p in line["predictions"]] == pytest.approx([p.score for p in expected], abs=1e-6)
    assert [str(missing) in line for line in err.splitlines()] == [True, True, True, False]
    assert "3 of 6" in err


def with_streams_in(encoding: str, *words: object) -> subprocess.CompletedProcess[bytes]:
    """minclip as a command of its own, whose standard streams have an encoding."""
    return subprocess.run(
        command(*words), env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, timeout=60
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_labels_that_stdout_cannot_encode_are_escaped(encoding: str, miniature: Path, pictures: Path) -> None:
    words = "zero-shot", pictures / "red.png", "--labels", "猫é😀", "--model", miniature
    done = with_streams_in(encoding, *words)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [done.stderr.strip()]  # that the probability of a lone label is always 1
    assert done.stdout.rstrip().endswith("猫é😀".encode(encoding, errors="backslashreplace"))
    spoken = with_streams_in(encoding, *words, "--json")
    assert json.loads(spoken.stdout.decode(encoding))["predictions"][0]["label"] == "猫é😀"


def test_a_large_picture_raises_no_warning(
    miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    command = "zero-shot", pictures / "red.png", "--labels", "a", "--model", miniature
    run(*command, capsys=capsys)
    assert not [w for w in recwarn if w.category is Image.DecompressionBombWarning]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    _, err = run(*command, code=2, capsys=capsys)
    assert "too large" in err


def best(out: str) -> list[str]:
    """The first label of every line of JSON."""
    return [json.loads(line)["predictions"][0]["label"] for line in out.splitlines()]


def test_labels_given_in_several_places_add_up(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "labels.txt"
    file.write_bytes("\ufeffa green circle\r\n\n  a yellow circle  \n".encode())
    words = "--labels", "a blue circle", "--labels", "a red circle", "a red square", "--labels-file", file
    out, err = run("zero-shot", pictures, *words, "--json", "--model", miniature, capsys=capsys)
    expected = {"a blue circle", "a red circle", "a red square", "a green circle", "a yellow circle"}
    assert {p["label"] for p in json.loads(out.splitlines()[0])["predictions"]} == expected
    assert best(out) == ["a blue circle", "a red circle"]
    assert err == ""


def test_labels_are_read_from_stdin(
    miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(captions()).encode())))
    out, _ = run("zero-shot", pictures, "--labels-file", "-", "--json", "--model", miniature, capsys=capsys)
    assert best(out) == ["a blue circle", "a red circle"]


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("dog", "its probability is always 1; give others"),
        ("dog,cat,bird", "for several write --labels dog cat bird"),
        ("a dog, a cat", 'for several write --labels "a dog" "a cat"'),
    ],
)
def test_a_lone_label_is_answered_with_a_hint(
    label: str, said: str, miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "zero-shot", pictures / "red.png", "--labels", label, "--model", miniature
    out, err = run(*words, capsys=capsys)
    assert out == f"{pictures / 'red.png'}\t1.000000\t{label}\n"
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labels", "a", " "), "holds ' ', which says nothing"),
        (("--labels", "a", ""), "holds '', which says nothing"),
        (("--labels", "a", "b", "--labels", "a"), "holds 'a' twice"),
        ((), "no label was given"),
        (("--labels-file", "EMPTY"), "no label was given"),
        (("--labels-file", "nowhere.txt"), "nowhere.txt cannot be read: No such file"),
        (("--labels-file", "LATIN"), "must be text in UTF-8"),
        (("--label", "a"), "unrecognized arguments: --label a"),
        (("--labels", "a", "--top", "1"), "unrecognized arguments: --top 1"),
        (("-", "--labels-file", "-"), "cannot both be read from stdin"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(
    words: tuple[str, ...], said: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    real = {"EMPTY": str(tmp_path / "empty"), "LATIN": str(tmp_path / "latin")}
    given = ["zero-shot", str(pictures / "red.png"), *(real.get(word, word) for word in words)]
    try:
        code = main([*given, "--model", "never/looked/for"])
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("minclip: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_numbers_that_are_not_finite_are_an_error_and_no_json(
    miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = damaged(miniature, tmp_path / "damaged")
    words = "zero-shot", pictures, "--labels", "a", "b", "--json", "--model", folder
    out, err = run(*words, code=2, capsys=capsys)
    assert out == ""
    assert f"minclip info --check {folder}" in err
    assert len(err.splitlines()) == 1
