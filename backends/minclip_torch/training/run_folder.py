"""What lies in a run's folder: recipe.json, metrics.jsonl, state.pt. Each is whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from minclip.errors import MinclipError
from minclip.files import replacing
from minclip_torch.training.recipe import Recipe, RecipeError


class TrainingError(MinclipError):
    """A run that went wrong: the step, and where the last good state lies."""


class RunFolder:
    """The files of one run. Where several processes train, only the first writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.json"
        self.state = path / "state.pt"
        self.metrics = path / "metrics.jsonl"

    def check(self, recipe: Recipe) -> None:
        """Raise RecipeError, naming the settings that differ, where the run in the folder is of another recipe."""
        if self.recipe.exists():
            differences = recipe.differences(Recipe.read(self.recipe))
            if differences:
                raise RecipeError(f"{self.path} holds another run: {'; '.join(differences)}; name another folder")

    def claim(self, recipe: Recipe) -> None:
        """Make the folder, and say in it whose it is."""
        self.path.mkdir(parents=True, exist_ok=True)
        with replacing(self.recipe) as file:
            file.write(recipe.to_json().encode())

    # --- metrics.jsonl ---------------------------------------------------------------------------------------------

    def log(self, line: dict[str, Any]) -> None:
        """Append one line, floats to six places, in a single write."""
        rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in line.items()}
        with self.metrics.open("ab", buffering=0) as file:
            file.write(json.dumps(rounded).encode() + b"\n")

    def lines(self) -> list[dict[str, Any]]:
        """All that was logged; a line that a crash cut short is none."""
        found = []
        for line in self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.exists() else []:
            try:
                if line.endswith(b"\n"):
                    found.append(dict(json.loads(line)))
            except (ValueError, TypeError):
                continue
        return found

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps that were lost, which will be gone through again."""
        if self.metrics.exists():
            kept = [json.dumps(line) + "\n" for line in self.lines() if line.get("step", step + 1) <= step]
            with replacing(self.metrics) as file:
                file.write("".join(kept).encode())

    # --- state.pt --------------------------------------------------------------------------------------------------

    def save(self, state: dict[str, Any]) -> None:
        """Write state.pt, all of it or none. Raises TrainingError where it cannot be written."""
        try:
            with replacing(self.state) as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:  # a full disk is a RuntimeError to torch's writer
            raise TrainingError(f"{self.state} cannot be written: {' '.join(str(error).split())[:200]}") from None

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """What `save` wrote last, None where there is nothing. Raises TrainingError where it is damaged."""
        if not self.state.exists():
            return None
        try:
            return dict(torch.load(self.state, map_location=device, weights_only=True))
        except Exception as error:  # torch raises whatever its unpickler does
            reason = " ".join(repr(error).split())[:80]
            raise TrainingError(f"{self.state} cannot be read ({reason}); delete it to start anew") from None
