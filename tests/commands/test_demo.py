"""The demo: its table, its pictures, and that what it prints is what minclip says."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from command_line import left_in, on_terminal
from PIL import Image, ImageColor

import minclip
from minclip.commands import demo, sheet
from minclip.commands.cli import main
from minclip.commands.sheet import thumbnail
from minclip.ranking import Prediction

LICENCES = (demo.PICTURES / "LICENSES.md").read_text(encoding="utf-8")


def script(text: str) -> str:
    """The writing system of a text's first letter, as Unicode names it."""
    return unicodedata.name(next(char for char in text if char.isalpha())).split()[0]


def test_the_table_spans_six_scripts_and_as_many_languages_as_pictures() -> None:
    assert len({script(example.labels[0]) for example in demo.EXAMPLES}) >= 6
    assert len({example.language for example in demo.EXAMPLES}) == len(demo.EXAMPLES)


@pytest.mark.parametrize("example", demo.EXAMPLES, ids=lambda example: example.picture)
def test_an_example_is_five_things_in_one_script(example: demo.Example) -> None:
    assert len(set(example.labels)) == len(set(example.english)) == 5
    assert len({script(label) for label in example.labels}) == 1


def test_every_picture_is_small_and_licensed_and_shown() -> None:
    files = sorted(demo.PICTURES.glob("*.png"))
    assert {file.name for file in files} == {example.picture for example in demo.EXAMPLES}
    assert {file.name for file in files} == set(re.findall(r"^\| `(\S+)` \|.*https://", LICENCES, flags=re.MULTILINE))
    for file in files:
        assert file.stat().st_size < 16_000
        with Image.open(file) as picture:
            assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (128, 128))


def shown(out: str) -> dict[str, list[tuple[str, str]]]:
    """What the demo printed: for each picture its labels and their percentages, as they stand."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in out.partition("\n\n")[0].splitlines():
        if line.startswith(" "):
            percent, label = re.fullmatch(r" +(\d+\.\d%) █* +(.+)", line).groups()  # type: ignore[union-attr]
            found[name].append((label, percent))
        else:
            name = line.split(" (")[0]
            found[name] = []
    return found


def test_the_demo_shows_what_the_one_liner_says(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    found = shown(capsys.readouterr().out)
    assert list(found) == [example.picture for example in demo.EXAMPLES]
    for example in demo.EXAMPLES:
        expected = minclip.zero_shot(demo.PICTURES / example.picture, example.labels)
        assert found[example.picture] == [(p.label, f"{p.score:.1%}") for p in expected]


def test_the_python_that_the_demo_prints_gives_what_it_showed(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo"])
    out = capsys.readouterr().out
    imported, call = out.splitlines()[-2:]
    assert imported == "import minclip"
    (first, *_) = shown(out).values()
    assert [(p.label, f"{p.score:.1%}") for p in eval(call, {"minclip": minclip})] == first


def test_the_demo_imports_nothing_heavy(box: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from minclip.checkpoints import sources\n"
        f"sources.BUNDLED = pathlib.Path({str(box)!r})\n"
        "from minclip.commands.cli import main\n"
        "main(['demo'])\n"
        "heavy = {'torch', 'transformers', 'hypothesis', 'huggingface_hub', 'sentencepiece'}\n"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_picture_gets_its_label() -> None:
    for example, ranking in demo.rankings(minclip.load()):
        assert ranking[0].label == example.labels[0], example


# --- a picture of the user's ---------------------------------------------------------------------------------------


def percents(out: str) -> list[tuple[str, str]]:
    """Labels and percentages of the one picture shown."""
    (found,) = shown(out).values()
    return found


def test_a_picture_of_the_users_is_named_with_everyday_things(capsys: pytest.CaptureFixture[str]) -> None:
    picture = demo.PICTURES / "bicycle.png"
    assert main(["demo", str(picture)]) == 0
    expected = minclip.zero_shot(picture, demo.THINGS, top_k=5)
    assert percents(capsys.readouterr().out) == [(p.label, f"{p.score:.1%}") for p in expected]
    assert expected[0].label == "bicycle"


def test_a_picture_of_the_users_is_named_with_labels_of_the_users(capsys: pytest.CaptureFixture[str]) -> None:
    picture = demo.PICTURES / "bicycle.png"
    assert main(["demo", str(picture), "vélo", "chat"]) == 0
    expected = minclip.zero_shot(picture, ["vélo", "chat"])
    assert percents(capsys.readouterr().out) == [(p.label, f"{p.score:.1%}") for p in expected]


def test_a_picture_that_cannot_be_read_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path / "missing.png")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "using the bundled" not in line] == [
        f"minclip: cannot open image {tmp_path / 'missing.png'}: No such file or directory; "
        "expected the path of an image file"
    ]


# --- on a terminal, and on a sheet ---------------------------------------------------------------------------------


def pixels(lines: list[str]) -> np.ndarray:
    """What half blocks in colour show, as RGBA (rows, columns, 4)."""
    rows: list[list[tuple[int, ...]]] = []
    for line in lines:
        above, below = [], []
        for colours, char in re.findall(r"(?:\x1b\[([\d;]+)m)?([▀▄ ])(?:\x1b\[0m)?", line):
            found = [(*map(int, colour), 255) for colour in re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", colours)]
            none = (0, 0, 0, 0)
            first, second = {0: (none, none), 2: tuple(found)}.get(
                len(found), (found[0], none) if char == "▀" else (none, *found)
            )
            above.append(first)
            below.append(second)
        rows += [above, below]
    return np.array(rows, np.uint8)


def test_a_thumbnail_is_the_picture(tmp_path: Path) -> None:
    picture = np.zeros((18, 18, 4), np.uint8)
    picture[2:11, 3:9] = 200, 30, 20, 255
    picture[5:16, 9:12] = 10, 90, 220, 255
    Image.fromarray(picture).save(tmp_path / "picture.png")
    np.testing.assert_array_equal(pixels(thumbnail(tmp_path / "picture.png")), picture)


@pytest.mark.parametrize("colours", ["", "truecolor"])
def test_the_demo_shows_pictures_where_the_terminal_has_all_colours(colours: str) -> None:
    out = on_terminal("demo", demo.PICTURES / "dog.png", "dog", "cat", stream="stdout", env={"COLORTERM": colours})
    assert ("\x1b[38;2;" in out) == bool(colours)
    assert "dog" in out
    assert "█" in out


def test_the_sheet_has_a_card_for_each_picture_and_bars_as_long_as_the_scores(tmp_path: Path) -> None:
    answers = [
        demo.Answer(demo.PICTURES / "dog.png", "English", [Prediction("dog", 0.5), Prediction("cat", 0.25)]),
        demo.Answer(demo.PICTURES / "fish.png", "", [Prediction("a very long label " * 5, 1.0)]),
    ]
    drawn = np.asarray(sheet.sheet(answers, sheet.Fonts([])).convert("RGB")).astype(int)
    for index, answer in enumerate(answers):
        left = (sheet.MARGIN + index * (sheet.WIDTH + sheet.MARGIN)) * sheet.SCALE
        card = drawn[:, left : left + sheet.WIDTH * sheet.SCALE]
        for place, (_, score) in enumerate(answer.ranking):
            top = sheet.MARGIN + sheet.PICTURE + 2 * sheet.GAP + sheet.TITLE + place * sheet.LINE
            row = card[top * sheet.SCALE + 2]  # above the letters
            colour = ImageColor.getrgb(sheet.OTHERS if place else sheet.FIRST)
            near = np.abs(row - colour).max(axis=-1) < 8
            assert near.mean() == pytest.approx(score, abs=0.03)
        inside = card[sheet.MARGIN * sheet.SCALE : (sheet.MARGIN + sheet.PICTURE) * sheet.SCALE]
        assert len(np.unique(inside.reshape(-1, 3), axis=0)) > 20  # the picture


def test_labels_that_no_font_has_are_ranked_in_english_on_the_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(sheet, "sheet", lambda answers, fonts: drawn.extend(answers) or Image.new("RGB", (1, 1)))
    assert main(["demo", "--sheet", str(tmp_path / "sheet.png")]) == 0
    for example, answer in zip(demo.EXAMPLES, drawn, strict=True):
        expected = (example.language, example.labels) if example.labels[0].isascii() else ("English", example.english)
        assert (answer.language, answer.ranking[0].label) == (expected[0], expected[1][0])
    assert "6 of 8 are in English" in capsys.readouterr().err
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sheet", "sheet.jpg"), "must end in .png"),
        (("PICTURE", "--sheet", "PICTURE"), "is one of the pictures"),
        (("--sheet", "OUT", "--font", "PICTURE"), "name a TrueType"),
        (("PICTURE", "猫", "狗", "--sheet", "OUT"), "no font for the labels"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes((demo.PICTURES / "dog.png").read_bytes())
    real = {"PICTURE": str(picture), "OUT": str(tmp_path / "out.png")}
    assert main(["demo", *(real.get(word, word) for word in words)]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "using the bundled" not in line)
    assert line.startswith("minclip: ")
    assert said in line
    assert left_in(tmp_path) == {"picture.png"}


def test_the_gallery_of_the_readme_is_small() -> None:
    gallery = Path(__file__).parents[2] / "tutorials" / "gallery.png"
    assert gallery.stat().st_size < 150_000
    with Image.open(gallery) as picture:
        assert picture.width == (sheet.COLUMNS * (sheet.WIDTH + sheet.MARGIN) + sheet.MARGIN) * sheet.SCALE
