"""The tutorials: each notebook is whole as it is stored, and, with the marker `tutorial`, runs from top to bottom."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

TUTORIALS = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("[0-9][0-9]-*.ipynb"))
PAGES = sorted(TUTORIALS.glob("*.md"))
LARGEST = 1_000_000  # bytes
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:home|root|tmp|work|opt|Users)/|\\\\Users\\\\|site-packages")
LINK = re.compile(r"\]\(([^)\s]+)\)")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """The cells of a kind, "code" or "markdown", that hold something; each with its source as one string."""
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    found = [{**cell, "source": "".join(cell["source"])} for cell in found if cell["cell_type"] == kind]
    return [cell for cell in found if cell["source"].strip()]


def targets(path: Path) -> list[str]:
    """Where the links of a page or a notebook lead."""
    if path.suffix == ".md":
        return LINK.findall(path.read_text(encoding="utf-8"))
    return [target for cell in cells(path, "markdown") for target in LINK.findall(cell["source"])]


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@each_notebook
def test_a_notebook_is_valid(path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, as_version=4))


@each_notebook
def test_a_notebook_is_small(path: Path) -> None:
    assert path.stat().st_size < LARGEST


@each_notebook
def test_all_cells_were_executed_in_order_and_without_error(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]


@each_notebook
def test_figures_and_printed_lines_are_stored(path: Path) -> None:
    showing = [cell for cell in cells(path, "code") if re.search(r"^print\(|^fig, ", cell["source"], re.MULTILINE)]
    assert showing
    assert not [cell["source"] for cell in showing if not cell["outputs"]]
    drawing = [cell for cell in showing if re.search(r"^fig, ", cell["source"], re.MULTILINE)]
    for cell in drawing:
        assert any("image/png" in output.get("data", {}) for output in cell["outputs"]), cell["source"]


@each_notebook
def test_nothing_stored_names_a_folder_of_the_machine_it_was_made_on(path: Path) -> None:
    printed = [json.dumps(cell["outputs"]) for cell in cells(path, "code")]
    text = [re.sub(r'"image/png": "[^"]*"', "", output) for output in printed]
    text += [cell["source"] for kind in ("code", "markdown") for cell in cells(path, kind)]
    assert not [part[:200] for part in text if MACHINE_PATH.search(part)]


@each_notebook
def test_the_first_code_cell_installs_only_where_minclip_is_missing(path: Path) -> None:
    first = cells(path, "code")[0]["source"]
    assert 'find_spec("minclip") is None' in first
    assert "%pip install" in first


@each_notebook
def test_a_notebook_opens_with_title_badges_aim_time_and_needs(path: Path) -> None:
    first = cells(path, "markdown")[0]["source"]
    assert first.startswith(f"# {path.stem[:2]} ")
    for address in ("colab.research.google.com/github/", "mybinder.org/v2/gh/"):
        assert re.search(rf"{re.escape(address)}\S*tutorials/{path.name}\)", first), address
    for word in ("You learn", "Time", "You need"):
        assert f"**{word}**" in first


@each_notebook
def test_claims_are_asserted(path: Path) -> None:
    assert any(re.search(r"^\s*assert ", cell["source"], re.MULTILINE) for cell in cells(path, "code"))


@each_notebook
def test_exercises_have_folded_solutions(path: Path) -> None:
    text = "\n".join(cell["source"] for cell in cells(path, "markdown"))
    assert "## Exercises" in text
    assert text.count("<details>") == text.count("</details>") >= 2
    assert text.index("## Exercises") < text.index("<details>")


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda path: path.stem)
def test_links_into_the_repository_lead_somewhere(path: Path) -> None:
    inside = [target.partition("#")[0] for target in targets(path) if not re.match(r"\w+:|#", target)]
    assert not [target for target in inside if not (path.parent / target).exists()]


@pytest.mark.tutorial
@each_notebook
def test_a_notebook_runs_from_top_to_bottom(path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(TUTORIALS)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
