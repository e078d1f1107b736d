"""minclip called as a user calls it: in this process, in one of its own, and on a terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from minclip.commands.cli import main


def run(*words: object, code: int = 0, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """Call main with the words. Returns what it wrote to stdout and stderr."""
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    return out, err


def command(*words: object) -> list[str]:
    """The words of a process of minclip's own."""
    return [sys.executable, "-m", "minclip", *map(str, words)]


def on_terminal(*words: object, stream: str, code: int = 0, env: Mapping[str, str] | None = None) -> str:
    """What a process of minclip's own writes to `stream` ("stdout" or "stderr") where that is a terminal."""
    leader, follower = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    given = {stream: follower, other: subprocess.DEVNULL}
    process = subprocess.Popen(command(*words), env={**os.environ, **(env or {})}, **given)  # type: ignore[call-overload]
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65536):
            shown += part
    except OSError:  # the other end is closed
        pass
    os.close(leader)
    assert process.wait(timeout=60) == code, shown
    return shown.decode()


def left_in(folder: Path) -> set[str]:
    """The names of the files in a folder, hidden ones too."""
    return {path.name for path in folder.iterdir()}


def damaged(checkpoint: Path, folder: Path, number: float = np.nan) -> Path:
    """A copy of a checkpoint with a number, NaN unless given, in each of its projections."""
    shutil.copytree(checkpoint, folder)
    file = folder / "model.safetensors"
    tensors = {name: array.copy() for name, array in load_file(file).items()}
    for name in tensors:
        if name.endswith("projection.weight"):
            tensors[name][0, 0] = number
    save_file(tensors, file, metadata={"format": "pt"})
    return folder
