"""`minclip evaluate`: the figures, recomputed here the long way, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from miniature import COLOURS, captions, draw
from PIL import Image

import minclip
from minclip.commands.cli import main


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three drawings of each caption, in a folder named after it; those of one are deeper down."""
    folder = tmp_path_factory.mktemp("labelled")
    for place, caption in enumerate(captions()):
        below = folder / caption / "deep" if not place else folder / caption
        below.mkdir(parents=True)
        for number in range(3):
            draw(caption, np.random.default_rng(100 * place + number), side=48).save(below / f"{number}.png")
    return folder


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out, err


def write(path: Path, *rows: tuple[object, ...]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_the_figures_are_those_of_zero_shot(
    labelled: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = "{} drawn"
    out, _ = run("evaluate", labelled, "--json", "--model", miniature, "--template", template, capsys=capsys)
    found = json.loads(out)
    model = minclip.load(miniature)
    rankings = {
        str(path): [p.label for p in model.zero_shot(path, sorted(captions()), template=template)]
        for path in labelled.rglob("*.png")
    }
    right = {path: Path(path).relative_to(labelled).parts[0] for path in rankings}
    assert found["top1"] == pytest.approx(np.mean([right[path] == r[0] for path, r in rankings.items()]))
    assert found["top5"] == pytest.approx(np.mean([right[path] in r[:5] for path, r in rankings.items()]))
    reciprocal = [1 / (1 + r.index(right[path])) for path, r in rankings.items()]
    assert found["mean_reciprocal_rank"] == pytest.approx(np.mean(reciprocal))
    assert 0 < found["top1"] < 1  # else the claims above say little
    counts = np.zeros((12, 12), int)
    for path, ranking in rankings.items():
        counts[found["confusion"]["labels"].index(right[path]), found["confusion"]["labels"].index(ranking[0])] += 1
    assert found["confusion"]["counts"] == counts.tolist()
    for each in found["classes"]:
        own = [r for path, r in rankings.items() if right[path] == each["label"]]
        assert each["pictures"] == 3
        assert each["top1"] == pytest.approx(np.mean([r[0] == each["label"] for r in own]))


def test_a_csv_means_the_same_as_folders(
    labelled: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [(path, path.relative_to(labelled).parts[0]) for path in sorted(labelled.rglob("*.png"))]
    table = write(tmp_path / "t.csv", ("path", "label"), *rows)
    assert (
        run("evaluate", table, "--model", miniature, capsys=capsys)[0]
        == run("evaluate", labelled, "--model", miniature, capsys=capsys)[0]
    )


def test_paths_of_a_csv_start_at_its_folder(
    labelled: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colours = [(f"a {colour} square/0.png", colour) for colour in COLOURS]
    table = write(labelled / "t.csv", ("label", "path"), *((b, a) for a, b in colours))
    try:
        out, _ = run("evaluate", table, "--model", miniature, "--template", "a {} square", capsys=capsys)
    finally:
        table.unlink()
    assert out.splitlines()[0] == f"4 pictures, 4 labels, {miniature}"


def test_captions_are_ranked_both_ways(
    labelled: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [(labelled / caption / f"{i}.png", caption) for caption in captions()[1:] for i in range(2)]
    pairs += [(pairs[0][0], "a blue circle"), (pairs[0][0], "something else")]
    out, _ = run(
        "evaluate",
        write(tmp_path / "t.csv", ("path", "caption"), *pairs),
        "--json",
        "--model",
        miniature,
        capsys=capsys,
    )
    found, model = json.loads(out), minclip.load(miniature)
    paths, texts = list(dict.fromkeys(p for p, _ in pairs)), list(dict.fromkeys(t for _, t in pairs))
    cosines = model.encode_image(paths) @ model.encode_text(texts).T
    wanted = {(paths.index(p), texts.index(t)) for p, t in pairs}
    by_picture = [
        1 + min(place for place, t in enumerate(np.argsort(-row)) if (i, t) in wanted) for i, row in enumerate(cosines)
    ]
    by_text = [
        1 + min(place for place, p in enumerate(np.argsort(-row)) if (p, j) in wanted)
        for j, row in enumerate(cosines.T)
    ]
    for name, rank in (("image_to_text", by_picture), ("text_to_image", by_text)):
        assert found[name]["mean_reciprocal_rank"] == pytest.approx(np.mean([1 / r for r in rank]), abs=0.05)
        for k in (1, 5, 10):
            assert found[name][f"recall{k}"] == pytest.approx(np.mean([r <= k for r in rank]), abs=0.09)


def test_the_confusion_matrix_is_a_table_json_and_a_picture(
    labelled: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("csv", "json", "png"):
        out, _ = run(
            "evaluate", labelled, "--json", "--model", miniature, "--confusion", tmp_path / f"c.{ending}", capsys=capsys
        )
    expected = json.loads(out)["confusion"]
    assert json.loads((tmp_path / "c.json").read_text()) == expected
    with (tmp_path / "c.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[1:] == [row[0] for row in rows] == expected["labels"]
    assert [[int(cell) for cell in row[1:]] for row in rows] == expected["counts"]
    assert Image.open(tmp_path / "c.png").width > 12 * 24


def test_what_cannot_be_read_is_left_out(
    labelled: Path, miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [(labelled / captions()[1] / "0.png", "a"), (labelled / captions()[2] / "0.png", "b")]
    table = write(tmp_path / "t.csv", ("path", "label"), *good, (tmp_path / "none.png", "c"))
    out, err = run("evaluate", table, "--json", "--model", miniature, code=1, capsys=capsys)
    assert json.loads(out)["unreadable"] == 1
    assert json.loads(out)["pictures"] == 2
    assert json.loads(out)["classes"][2]["top1"] is None
    assert "none.png" in err


@pytest.mark.parametrize("words", [[], ["--draft"]])
def test_pictures_are_drafted_where_it_is_asked_for(
    words: list[str], labelled: Path, miniature: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.object(minclip.Model, "encode_image", autospec=True, side_effect=minclip.Model.encode_image) as spy:
        run("evaluate", labelled, "--json", "--model", miniature, *words, capsys=capsys)
    assert spy.call_args.kwargs["draft"] == bool(words)


P = ("path", "label")


@pytest.mark.parametrize(
    ("rows", "more", "line"),
    [
        ([P, ("a.png", "Dog"), ("b.png", "dog ")], [], "labels 'Dog' and 'dog ' are the same to a model"),
        ([P, ("a.png", "dog"), ("a.png", "cat")], [], "line 3: a.png was already in line 2"),
        ([P, ("a.png", "dog"), ("b.png", "")], [], "line 3: a path and a label are expected"),
        ([P, ("a.png", "dog"), ("b.png", "dog")], [], "'dog' is the only label"),
        ([P], [], "names no pictures"),
        ([("a.png", "dog")], [], "must begin with a line that names its columns"),
        ([], [], "must begin with a line that names its columns"),
        ([("path", "caption"), ("a.png", "x")], ["--template", "a {}"], "--label-set and --confusion are for labels"),
        ([P, ("a.png", "dog"), ("b.png", "cat")], ["--confusion", "c.pdf"], "must end in .png, .csv, .json"),
        ([P, ("a.png", "dog"), ("b.png", "cat")], ["--confusion", "no/c.csv"], "no is not a folder"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    rows: list[tuple[str, ...]],
    more: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _, err = run("evaluate", write(tmp_path / "t.csv", *rows), *more, "--model", "nowhere", code=2, capsys=capsys)
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["missing", "empty", "binary.csv"])
def test_a_source_that_is_none_is_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty" / "label").mkdir(parents=True)
    (tmp_path / "binary.csv").write_bytes(b"path,label\n\xff,\xfe\n")
    _, err = run("evaluate", tmp_path / kind, code=2, capsys=capsys)
    assert str(tmp_path / kind) in err
    assert err.count("\n") == 1
