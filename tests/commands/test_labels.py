"""`minclip labels` and `--label-set`: the file means the labels, the templates and the model that it was made of."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import left_in, run
from miniature import captions

import minclip
from minclip.commands.cli import main

FORMS = ("{}", "{} here")


@pytest.fixture
def made(miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A set of all captions in two templates."""
    path = tmp_path / "set.npz"
    templates = [word for form in FORMS for word in ("--template", form)]
    words = "labels", *captions(), "-o", path, *templates, "--model", miniature
    assert run(*words, capsys=capsys) == ("", f"wrote 12 labels in 2 templates to {path}\n")
    return path


def test_the_file_is_the_label_set_of_the_model(made: Path, miniature: Path) -> None:
    expected = minclip.load(miniature).label_set(captions(), FORMS)
    found = minclip.LabelSet.open(made)
    assert np.array_equal(found.embeds, expected.embeds)
    assert (found.labels, found.templates, found.model) == (tuple(captions()), FORMS, str(miniature))


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_labels_come_from_a_file_or_stdin(
    source: str, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = "\n".join(captions()).encode()
    (tmp_path / "labels.txt").write_bytes(content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    given = tmp_path / "labels.txt" if source == "file" else "-"
    words = "labels", "first", "--labels-file", given, "-o", tmp_path / "set.npz", "--model", miniature
    run(*words, "--batch-size", 5, capsys=capsys)
    assert minclip.LabelSet.open(tmp_path / "set.npz").labels == ("first", *captions())


def test_zero_shot_with_the_set_prints_what_it_prints_with_the_labels(
    made: Path, miniature: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    templates = [word for form in FORMS for word in ("--template", form)]
    for shown in ((), ("--json",), ("--top-k", 2)):
        words = "--labels", *captions(), *templates, "--model", miniature
        expected = run("zero-shot", pictures, *shown, *words, capsys=capsys)
        assert run("zero-shot", pictures, *shown, "--label-set", made, capsys=capsys) == expected
        assert run("zero-shot", pictures, *shown, "--label-set", made, "--model", miniature, capsys=capsys) == expected


def test_evaluate_with_the_set_ranks_all_of_its_labels(
    made: Path, miniature: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "known.csv"
    rows = [f"{pictures / colour}.png,a {colour} circle" for colour in ("red", "blue")]
    table.write_text("\n".join(["path,label", *rows]))
    found = json.loads(run("evaluate", table, "--json", "--label-set", made, capsys=capsys)[0])
    assert (found["labels"], found["pictures"]) == (12, 2)
    assert found["confusion"]["labels"] == captions()
    model = minclip.load(miniature)
    best = [model.zero_shot(pictures / f"{c}.png", captions(), template=FORMS)[0].label for c in ("red", "blue")]
    right = np.mean([label == f"a {c} circle" for label, c in zip(best, ("red", "blue"), strict=True)])
    assert found["top1"] == pytest.approx(right)


def refused(words: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = run(*words, code=2, capsys=capsys)
    assert out == ""
    assert err.startswith("minclip: ")
    assert said in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--labels", "a", "b"), "leave out --labels"),
        (("--labels-file", "-"), "leave out --labels-file"),
        (("--template", "a {}"), "leave out --template"),
        (("--model", "mini-clip"), "is another model"),
        (("--top-k", "0"), "top_k"),
    ],
)
def test_what_contradicts_the_set_is_refused(
    words: tuple[str, ...], said: str, made: Path, pictures: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("minclip.loading.announce_bundled", lambda name: None)
    refused(("zero-shot", pictures, "--label-set", made, *words), said, capsys)


def test_a_file_that_is_no_set_is_refused_before_the_model_is_looked_for(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels.txt").write_text("a cat\na dog\n")
    for name, said in (("labels.txt", "labels.txt is not a whole label set"), ("none.npz", "none.npz cannot be read")):
        words = "--label-set", tmp_path / name, "--model", "never/looked/for"
        refused(("zero-shot", pictures, *words), said, capsys)
        (tmp_path / "known").mkdir(exist_ok=True)
        for colour in ("red", "blue"):
            (tmp_path / "known" / colour).mkdir(exist_ok=True)
            (tmp_path / "known" / colour / "a.png").write_bytes((pictures / f"{colour}.png").read_bytes())
        refused(("evaluate", tmp_path / "known", *words), said, capsys)


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("path,label\na.png,a red circle\nb.png,something else\n", (), "lacks label 'something else'"),
        ("path,label\na.png,a red circle\n", ("--template", "a {}"), "leave out --template"),
        ("path,caption\na.png,a red circle\n", (), "--label-set and --confusion are for labels"),
    ],
)
def test_evaluate_refuses_a_set_that_does_not_fit(
    content: str, words: tuple[str, ...], said: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known.csv").write_text(content)
    refused(("evaluate", tmp_path / "known.csv", "--label-set", made, *words), said, capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "set.npz"), "no label was given"),
        (("a", "a", "-o", "set.npz"), "holds 'a' twice"),
        (("a", " ", "-o", "set.npz"), "says nothing"),
        (("a", "--template", "b", "-o", "set.npz"), "template 'b' must hold one {}"),
        (("a", "-o", "set.txt"), "must end in .npz"),
        (("a", "-o", "none/set.npz"), "is not a folder"),
        (("a", "-o", "folder.npz"), "is a folder"),
        (("a", "-o", "set.npz", "--batch-size", "0"), "batch_size"),
        (("a", "-o", "set.npz", "--model", "nowhere/at/all"), "nowhere/at/all"),
    ],
)
def test_a_set_that_cannot_be_made_leaves_no_file(
    words: tuple[str, ...], said: str, miniature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.npz").mkdir()
    model = () if "--model" in words else ("--model", miniature)
    refused(("labels", *words, *model), said, capsys)
    assert left_in(tmp_path) == {"folder.npz"}


def test_an_output_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["labels", "a"])
    assert ended.value.code == 2
    assert "-o/--output" in capsys.readouterr().err
