"""A Python that can start no thread and has no safetensors, as one in a browser (Pyodide), answers all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import minclip
from minclip.commands.demo import PICTURES

WITHOUT = """
import sys, threading

def refuse(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
sys.modules["safetensors"] = None  # its import raises ImportError
"""


def run(code: str, *words: object) -> str:
    """What a process prints that runs the code under these conditions."""
    command = [sys.executable, "-c", WITHOUT + code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_it_ranks_labels_for_a_picture() -> None:
    code = "import minclip; print(minclip.zero_shot(sys.argv[1], ['a guitar', 'a dog', 'a fish'])[0].label)"
    assert run(code, PICTURES / "dog.png") == "a dog\n"


def test_it_embeds_many_pictures_as_any_other_python_does() -> None:
    paths = sorted(PICTURES.glob("*.png"))
    code = "import minclip; print(minclip.load('mini-clip').encode_image(sys.argv[1:], batch_size=3).tobytes().hex())"
    assert run(code, *paths).strip() == minclip.load("mini-clip").encode_image(paths, batch_size=3).tobytes().hex()


COMMAND = "from minclip.commands.cli import main; sys.exit(main(sys.argv[1:]))"


def test_the_demo_runs() -> None:
    assert "dog" in run(COMMAND, "demo")


def test_an_index_is_made_and_searched(tmp_path: Path) -> None:
    run(COMMAND, "index", PICTURES, "-o", tmp_path / "pictures.idx")
    assert run(COMMAND, "search", tmp_path / "pictures.idx", "a dog", "--top-k", "1").endswith("dog.png\n")


@pytest.mark.parametrize("module", ["minclip.testing", "minclip.checkpoints.torch_file", "minclip.gradients"])
def test_no_part_needs_safetensors_to_be_imported(module: str) -> None:
    run(f"import {module}")
