"""The demo: its table, its pictures, and that what it prints is what minclip says."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

import minclip
from minclip.commands import demo
from minclip.commands.cli import main

LICENCES = (demo.PICTURES / "LICENSES.md").read_text(encoding="utf-8")


def script(text: str) -> str:
    """The writing system of a text's first letter, as Unicode names it."""
    return unicodedata.name(next(char for char in text if char.isalpha())).split()[0]


def test_the_table_spans_six_scripts_and_as_many_languages_as_pictures() -> None:
    assert len({script(example.labels[0]) for example in demo.EXAMPLES}) >= 6
    assert len({example.language for example in demo.EXAMPLES}) == len(demo.EXAMPLES)


@pytest.mark.parametrize("example", demo.EXAMPLES, ids=lambda example: example.picture)
def test_an_example_is_five_things_in_one_script(example: demo.Example) -> None:
    assert len(set(example.labels)) == 5
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
