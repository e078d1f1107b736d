"""What a run keeps, and that a run cut off anywhere goes on as if nothing had happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training import identical, metrics, recipe, write_data, write_start

from minclip.errors import MinclipError
from minclip_torch.training.recipe import Recipe, RecipeError
from minclip_torch.training.run_folder import RunFolder, TrainingError
from minclip_torch.training.train import Run, train

NOISY = {"drop_patches": 0.5, "drop_path": 0.2, "drop_patches_until": 0.6, "dtype": "bfloat16", "steps": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    write_data(made)
    for family in ("clip", "altclip"):
        write_start(made / family, family)
    return made


def go(folder: Path, run: Path, made: Recipe, start: str = "clip") -> dict[str, Any]:
    data = folder / "data.jsonl"
    return train(folder / start, data, run, made, test=data, every=2, progress=False)


def same_state(a: Path, b: Path) -> None:
    """Bit for bit the same weights, averages, moments and metrics."""
    ours, theirs = (torch.load(run / "state.pt", weights_only=True) for run in (a, b))
    assert identical(ours, theirs)
    assert metrics(a) == metrics(b)
    assert (a / "model" / "model.safetensors").read_bytes() == (b / "model" / "model.safetensors").read_bytes()


class PowerCutError(Exception):
    """Stands for the power going out."""


def cut(patch: pytest.MonkeyPatch, where: str, when: int) -> None:
    """Make the `when`-th call of a method of Run or RunFolder end in the middle."""
    owner = Run if hasattr(Run, where) else RunFolder
    whole, calls = getattr(owner, where), []

    def broken(self: Any, *arguments: Any) -> Any:
        calls.append(where)
        if len(calls) == when:
            raise PowerCutError
        return whole(self, *arguments)

    patch.setattr(owner, where, broken)


@pytest.mark.parametrize(
    ("start", "settings"),
    [
        ("clip", {"optimizer": "muon"}),
        ("clip", {"optimizer": "adamw", "chunk_size": 3}),
        ("altclip", {"optimizer": "muon", "freeze": ("vision",)}),
    ],
    ids=["clip", "chunks", "altclip"],
)
def test_a_run_that_was_cut_off_comes_to_the_same_bits(
    folder: Path, tmp_path: Path, start: str, settings: dict[str, Any]
) -> None:
    made = recipe(**{**NOISY, **settings})
    last = go(folder, tmp_path / "whole", made, start)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, "advance", 4)
        with pytest.raises(PowerCutError):
            go(folder, tmp_path / "cut", made, start)
    assert [line["step"] for line in metrics(tmp_path / "cut")] == [2]
    again = go(folder, tmp_path / "cut", made, start)
    same_state(tmp_path / "cut", tmp_path / "whole")
    assert {**again, "seconds_per_step": 0} == {**last, "seconds_per_step": 0}


@pytest.mark.parametrize(
    ("where", "when"),
    [
        ("check", 1),
        ("claim", 1),
        ("advance", 1),
        ("evaluate", 1),
        ("log", 1),
        ("save", 1),
        ("evaluate", 2),
        ("save", 2),
        ("export", 1),
    ],
)
def test_it_does_not_matter_where_it_was_cut_off(folder: Path, tmp_path: Path, where: str, when: int) -> None:
    made = recipe()
    go(folder, tmp_path / "whole", made)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, where, when)
        with pytest.raises(PowerCutError):
            go(folder, tmp_path / "cut", made)
    go(folder, tmp_path / "cut", made)
    same_state(tmp_path / "cut", tmp_path / "whole")


def test_half_a_state_and_half_a_line_are_ignored(folder: Path, tmp_path: Path) -> None:
    made = recipe()
    go(folder, tmp_path / "whole", made)
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, "advance", 4)
        with pytest.raises(PowerCutError):
            go(folder, tmp_path / "cut", made)
    half = (tmp_path / "cut" / "state.pt").read_bytes()[:999]
    (tmp_path / "cut" / ".state.pt.1.tmp").write_bytes(half)
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    go(folder, tmp_path / "cut", made)
    same_state(tmp_path / "cut", tmp_path / "whole")


def test_a_state_is_replaced_only_when_the_next_one_is_whole(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path)
    run.save({"step": 1})

    def fills_the_disk(state: Any, file: Any) -> None:
        file.write(b"half of")
        raise RuntimeError("PytorchStreamWriter failed\nwriting file")

    monkeypatch.setattr(torch, "save", fills_the_disk)
    with pytest.raises(TrainingError, match=r"state\.pt cannot be written: PytorchStreamWriter failed writing file"):
        run.save({"step": 2})
    assert run.load(torch.device("cpu")) == {"step": 1}
    assert list(tmp_path.iterdir()) == [run.state]  # nor does the half stay and fill the disk


def test_a_finished_run_is_only_exported_again(folder: Path, tmp_path: Path) -> None:
    first = go(folder, tmp_path, recipe())
    model = tmp_path / "model" / "model.safetensors"
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    weights = model.read_bytes()
    model.unlink()
    assert go(folder, tmp_path, recipe()) == pytest.approx(first, abs=1e-6)
    assert model.read_bytes() == weights
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert {name: after[name] for name in ("metrics.jsonl", "recipe.json", "state.pt")} == before


def test_another_recipe_is_refused_by_its_settings(folder: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path).claim(recipe())
    with pytest.raises(RecipeError) as caught:
        go(folder, tmp_path, recipe(steps=5, freeze=("vision",)))
    said = f"{tmp_path} holds another run: steps 4, not 5; freeze (), not ('vision',); name another folder"
    assert str(caught.value) == said


def test_a_recipe_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(RecipeError, match=r"recipe\.json cannot be read"):
        go(folder, tmp_path, recipe())


@pytest.mark.parametrize("damage", ["empty", "half", "text", "another file", "another model", "parts"])
def test_a_damaged_state_is_one_line(folder: Path, tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    go(folder, run, recipe(steps=2))
    path, start = run / "state.pt", "clip"
    if damage == "another file":
        torch.save([1, 2], path)
    elif damage == "parts":
        torch.save({"step": 1}, path)
    elif damage == "another model":
        write_start(tmp_path / "wider", width=24)
        start = str(tmp_path / "wider")
    else:
        path.write_bytes({"empty": b"", "half": path.read_bytes()[:2000], "text": b"state"}[damage])
    with pytest.raises(TrainingError) as caught:
        go(folder, run, recipe(steps=2), start)
    assert str(caught.value).startswith(f"{path} ")
    assert "\n" not in str(caught.value)


def test_metrics_are_whole_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1 / 3})
    assert run.metrics.read_text().splitlines() == [json.dumps({"step": s, "loss": 0.333333}) for s in (1, 2, 3)]
    run.metrics.write_bytes(run.metrics.read_bytes() + b'[1]\n{"step": 4\n\xff\n{"step": 5}')
    assert [line["step"] for line in run.lines()] == [1, 2, 3]
    run.forget_after(2)
    assert [line["step"] for line in run.lines()] == [1, 2]
    run.log({"step": 3})
    assert [line["step"] for line in run.lines()] == [1, 2, 3]


def test_errors_of_a_run_are_minclips() -> None:
    assert issubclass(TrainingError, MinclipError)
