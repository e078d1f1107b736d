"""The files of a run: recipe.json, metrics.jsonl, state.pt, each written whole or not at all; and trainer.lock."""

from __future__ import annotations

import json
import os
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch

from minclip.errors import MinclipError
from minclip.files import one_line, replacing
from minclip_torch.training.recipe import Recipe, RecipeError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LONGEST_NAME = 1000  # characters, of a tensor or a type in a state


class TrainingError(MinclipError):
    """A run that failed: what is wrong, and where the last good state is."""


class RunFolder:
    """The files of one run. Where several processes train together, only rank 0 writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.json"
        self.state = path / "state.pt"
        self.metrics = path / "metrics.jsonl"
        self._lock: int | None = None  # the descriptor of trainer.lock

    def lock(self) -> None:
        """Make the folder, and reserve it until `unlock` or the end of this process, even by a kill.

        What is locked is a file of its own, trainer.lock: the lock of the folder is that of `files.replacing`, which
        would wait for it. Raises TrainingError where another process trains in it. Windows, and file systems without
        locks, reserve nothing.
        """
        if self._lock is not None:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        if fcntl is None:
            return
        file = os.open(self.path / "trainer.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            message = f"another process trains in {self.path}; wait until it ends, or name another run folder"
            raise TrainingError(message) from None
        except OSError:  # a file system without locks
            os.close(file)
        else:
            self._lock = file
            for killed in (*self.path.glob(".*.tmp"), *self.path.glob("model/.*.tmp")):
                killed.unlink()  # what a killed process was writing

    def unlock(self) -> None:
        """Let others train in the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check(self, recipe: Recipe) -> None:
        """Raise RecipeError, naming the settings that differ, where the run in the folder has another recipe."""
        if self.recipe.exists():
            differences = recipe.differences(Recipe.read(self.recipe))
            if differences:
                raise RecipeError(f"{self.path} holds another run: {'; '.join(differences)}; name another folder")

    def claim(self, recipe: Recipe) -> None:
        """Make the folder and write the recipe into it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.recipe) as file:
            file.write(recipe.to_json().encode())

    # --- metrics.jsonl ---------------------------------------------------------------------------------------------

    def log(self, line: dict[str, Any]) -> None:
        """Append one line, floats rounded to six places, in a single write."""
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in line.items()}
        with self.metrics.open("ab", buffering=0) as file:
            file.write(json.dumps(rounded).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        """All lines of metrics, without what is none: a line that a crash cut short, an object without a step."""
        found = []
        for line in self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []:
            try:
                content = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                continue
            if isinstance(content, dict) and isinstance(content.get("step"), int):
                found.append(content)
        return found

    def forget_after(self, step: int) -> None:
        """Drop the lines of later steps, which were lost with the process and will be repeated."""
        if self.metrics.exists():
            kept = [json.dumps(line) + "\n" for line in self.lines() if line["step"] <= step]
            with replacing(self.metrics) as file:
                file.write("".join(kept).encode())

    # --- state.pt --------------------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> None:
        """Write state.pt whole, or leave the old one. Raises TrainingError where it cannot be written."""
        try:
            with replacing(self.state) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError to torch's writer
            raise TrainingError(f"{self.state} cannot be written: {one_line(error)[:200]}") from None

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What `save` wrote last, None where there is nothing. Raises TrainingError where the file is damaged.

        The file is a zip archive, whose checksums torch does not look at: they are verified here. So is the length of
        names in its pickle, which torch's error about an unknown one takes seconds to search.
        """
        if not self.state.exists():
            return None
        try:
            with zipfile.ZipFile(self.state) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise ValueError(f"the checksum of {damaged} is wrong")
                for name in archive.namelist():
                    if name.endswith("data.pkl"):
                        _check_names(archive.read(name))
            return dict(torch.load(self.state, map_location=device, weights_only=True))
        except Exception as error:  # the readers of zip archives and pickles raise all kinds
            raise TrainingError(f"{self.state} is damaged ({one_line(error)[:80]}); delete it to start anew") from None


def _check_names(pickled: bytes) -> None:
    for _, argument, _ in pickletools.genops(pickled):
        if isinstance(argument, str) and len(argument) > LONGEST_NAME:
            raise ValueError(f"it holds a name of {len(argument)} characters")
