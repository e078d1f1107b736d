"""What README shows is what is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import minclip
from minclip.testing import BackendConformance

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def readmes_backend() -> Any:
    """The class that README defines, out of its own code."""
    namespace: dict[str, Any] = {}
    (block,) = (block for block in BLOCKS if "class Float64Backend" in block)
    exec(block, namespace)
    return namespace["Float64Backend"]()


class TestReadmesBackend(BackendConformance):
    backend = readmes_backend()
    device = "cpu"
    dtypes = ("float64",)
    examples = 3


def test_every_file_that_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[1] / link).exists(), link


def test_the_reading_guide_has_a_place_for_every_file_and_room() -> None:
    root = Path(minclip.__file__).parent
    there = {path.name for path in root.glob("*.py") if not path.name.startswith("__")}
    there |= {f"{path.parent.name}/" for path in root.glob("*/__init__.py")}
    guide = README.partition("## Reading guide")[2].partition("\n## ")[0]
    assert there - set(re.findall(r"\[`([^`]+)`\]", guide)) == set()


def test_every_name_of_minclip_that_readme_uses_is_there() -> None:
    for name in re.findall(r"\bminclip\.([a-z_]+)\(", README):
        assert hasattr(minclip, name), name


@pytest.mark.parametrize("command", re.findall(r"^minclip ([a-z-]+)", README, flags=re.MULTILINE))
def test_every_command_of_readme_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from minclip.commands.cli import main

    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert command in capsys.readouterr().out
