"""`minclip embed`, killed at any moment: its output is the old one or the new one, and nothing else is left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import left_in

from minclip.commands.cli import main


def words(pictures: Path, out: Path, model: Path) -> list[str]:
    return ["embed", str(pictures), "-o", str(out), "--model", str(model), "--batch-size", "1"]


def killed_after(seconds: float, pictures: list[Path], out: Path, model: Path) -> bool:
    """Embed one folder after the other in a child that is killed after a time. Whether it was still at it."""
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for folder in pictures * 100:
                main(words(folder, out, model))
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def arrays(file: Path) -> dict[str, bytes]:
    with np.load(file) as saved:
        return {name: saved[name].tobytes() for name in saved}


@pytest.mark.parametrize("kills", [5, pytest.param(70, marks=pytest.mark.long)])
def test_embed_killed_at_random_moments_loses_nothing(
    kills: int, miniature: Path, pictures: Path, tmp_path: Path
) -> None:
    one, two, folder = tmp_path / "one", tmp_path / "two", tmp_path / "out"
    shutil.copytree(pictures, one)
    shutil.copytree(pictures, two)
    (two / "red.png").unlink()
    folder.mkdir()
    out, wholes = folder / "out.npz", []
    for source in (two, one):
        started = time.monotonic()
        assert main(words(source, out, miniature)) == 0
        wholes.append(arrays(out))
    pace = time.monotonic() - started
    moments, seen = random.Random(kills), set()
    for _ in range(kills):
        assert killed_after(moments.uniform(0, 4 * pace), [two, one], out, miniature)
        assert arrays(out) in wholes
        seen.add(wholes.index(arrays(out)))
        for name in left_in(folder) - {"out.npz"}:  # killed between naming a complete file and moving it to its place
            assert hasattr(os, "O_TMPFILE")
            assert arrays(folder / name) in wholes
            (folder / name).unlink()
    assert kills < 10 or seen == {0, 1}
    assert {path.name: path.read_bytes() for path in one.iterdir()} == {
        p.name: p.read_bytes() for p in pictures.iterdir()
    }
