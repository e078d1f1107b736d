"""`minclip explain`, called as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import minclip
from minclip.commands.cli import main
from minclip.commands.heat import heat_sheet
from minclip.commands.sheet import Fonts
from minclip.explanations import explain

DOG = Path(minclip.__file__).parent / "bundled" / "pictures" / "dog.png"


def test_a_sheet_has_a_card_for_the_picture_and_for_each_label(tmp_path: Path) -> None:
    widths = []
    for labels in (["dog"], ["dog", "rocket"], ["собака", "ракета", "зонт"]):
        out = tmp_path / f"{len(labels)}.png"
        assert main(["explain", str(DOG), "--model", "mini-clip", "--labels", *labels, "-o", str(out)]) == 0
        with Image.open(out) as sheet:
            assert sheet.format == "PNG"
            widths.append(sheet.width)
    assert np.diff(widths, 2) == 0


def test_many_labels_go_on_in_further_rows() -> None:
    found = explain(DOG, [f"label {i}" for i in range(8)], model="mini-clip")
    sizes = [heat_sheet(found[:count], "dog.png", None, Fonts([])).size for count in (3, 4, 7, 8)]
    assert sizes[0][0] == sizes[1][0] == sizes[3][0]
    assert sizes[0][1] < sizes[1][1] == sizes[2][1] < sizes[3][1]


def test_the_heat_maps_are_drawn_as_the_overlays_are(tmp_path: Path) -> None:
    """Two labels with other maps give other cards; the same call gives the same bytes."""
    out = [tmp_path / f"{i}.png" for i in range(2)]
    for path in out:
        main(["explain", str(DOG), "--model", "mini-clip", "--labels", "dog", "rocket", "-o", str(path)])
    assert out[0].read_bytes() == out[1].read_bytes()
    dog, rocket = explain(DOG, ["dog", "rocket"], model="mini-clip")
    with Image.open(out[0]) as sheet:
        drawn = np.asarray(sheet.convert("RGB"), int)
    side = 464  # of a picture on the sheet
    for one in (dog, rocket):
        wanted = np.asarray(one.overlay(side), int)[100:-100, 100:-100]
        places = [x for x in range(0, drawn.shape[1] - side, 2) if matches(drawn, wanted, x + 100)]
        assert len(places) == 1, one.text


def matches(drawn: np.ndarray, wanted: np.ndarray, x: int) -> bool:
    top = 72 + 100  # margin and padding, then where the corners are no longer round
    return np.array_equal(drawn[top : top + len(wanted), x : x + wanted.shape[1]], wanted)


def test_json_gives_maps_tokens_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "heat.png"
    arguments = ["explain", str(DOG), "--model", "mini-clip", "--labels", "a dog", "--against", "rocket", "--json"]
    assert main([*arguments, "-o", str(out)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    (expected,) = explain(DOG, "a dog", model="mini-clip", against="rocket")
    np.testing.assert_allclose(found["map"], expected.map)
    assert found["score"] == pytest.approx(expected.score)
    assert [characters for characters, _ in found["tokens"]] == [characters for characters, _ in expected.tokens]


def test_a_truncated_label_is_explained_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "heat.png"
    assert main(["explain", str(DOG), "--model", "mini-clip", "--labels", "dog " * 200, "-o", str(out)]) == 0
    assert "is longer than the model reads; explained is 'dog dog" in capsys.readouterr().err
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png", "--labels", "dog"], "nowhere.png"),
        ([str(DOG), "--labels", "dog", "dog"], "holds 'dog' twice"),
        ([str(DOG), "--labels", " "], "says nothing"),
        ([str(DOG), "--labels", "dog", "--method", "rollout", "--against", "cat"], "does not look at the text"),
        ([str(DOG), "--labels", "dog", "--font", str(DOG)], "name a TrueType or OpenType file"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "heat.png"
    assert main(["explain", *arguments, "--model", "mini-clip", "-o", str(out)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "using the bundled" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(tmp_path.iterdir())


def test_an_output_of_another_kind_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(DOG), "--labels", "dog", "-o", str(tmp_path / "heat.jpg")]) == 2
    assert "must end in .png" in capsys.readouterr().err
