"""What a run keeps, and that a run cut off anywhere goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
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
    assert {name: after[name] for name in ("metrics.jsonl", "recipe.json", "state.pt", "trainer.lock")} == before


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


DAMAGES: dict[str, Callable[[bytearray, random.Random], None]] = {
    "a bit": lambda data, rng: flip(data, rng, 1),
    "bits": lambda data, rng: flip(data, rng, 20),
    "zeros": lambda data, rng: replace(data, rng, lambda part: bytes(len(part))),
    "noise": lambda data, rng: replace(data, rng, lambda part: rng.randbytes(len(part))),
    "a part lost": lambda data, rng: replace(data, rng, lambda part: b""),
    "a part twice": lambda data, rng: replace(data, rng, lambda part: part * 2),
    "the end lost": lambda data, rng: data.__delitem__(slice(rng.randrange(len(data)), None)),
    "zeros at the end": lambda data, rng: zero_after(data, rng.randrange(len(data))),
}


def flip(data: bytearray, rng: random.Random, count: int) -> None:
    for _ in range(count):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replace(data: bytearray, rng: random.Random, change: Callable[[bytes], bytes]) -> None:
    first, length = rng.randrange(len(data)), int(2 ** rng.uniform(0, 14))
    data[first : first + length] = change(bytes(data[first : first + length]))


def zero_after(data: bytearray, place: int) -> None:
    """As a file system leaves a file whose last blocks never reached the disk."""
    data[place:] = bytes(len(data) - place)


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_state_is_refused_or_is_the_same_state(folder: Path, tmp_path: Path, kind: str) -> None:
    """Some bytes of a zip archive mean nothing."""
    run = RunFolder(tmp_path / "run")
    go(folder, run.path, recipe(steps=2))
    whole, device = run.state.read_bytes(), torch.device("cpu")
    expected, refused = run.load(device), []
    for seed in range(25):
        data = bytearray(whole)
        DAMAGES[kind](data, random.Random(seed))
        run.state.write_bytes(data)
        try:
            found = run.load(device)
        except TrainingError as error:
            refused.append(str(error))
        else:
            assert identical(found, expected), seed
    assert len(refused) >= 10
    assert all(line.startswith(f"{run.state} is damaged (") and "\n" not in line for line in refused)


Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, Change] = {
    "no step": lambda state: state.pop("step"),
    "a text as step": lambda state: state.update(step="2"),
    "a truth as step": lambda state: state.update(step=True),
    "a step before the first": lambda state: state.update(step=-1),
    "a step after the last": lambda state: state.update(step=3),
    "something more": lambda state: state.update(more=1),
    "a list as model": lambda state: state.update(model=list(state["model"].values())),
    "numbers as model": lambda state: state.update(model=dict.fromkeys(state["model"], 0.0)),
    "nothing as average": lambda state: state.update(average=None),
    "a weight missing": lambda state: state["model"].popitem(),
    "an average of another shape": lambda state: state["average"].update(logit_scale=torch.ones(2)),
    "an average of another type": lambda state: state["average"].update(logit_scale=torch.tensor(1.0).double()),
    "an average that is NaN": lambda state: state["average"]["logit_scale"].fill_(torch.nan),
    "no optimizer": lambda state: state.update(optimizer=[]),
    "a text as optimizer": lambda state: state.update(optimizer="adamw"),
    "numbers as optimizer": lambda state: state.update(optimizer=[1]),
    "an optimizer without moments": lambda state: moments(state).clear(),
    "moments of another shape": lambda state: moments(state).update(exp_avg=torch.ones(3)),
    "moments that are texts": lambda state: moments(state).update(exp_avg="0"),
    "moments that are infinite": lambda state: moments(state)["exp_avg"].fill_(torch.inf),
    "mean squares below 0": lambda state: moments(state)["exp_avg_sq"].neg_(),
    "a count of steps below 0": lambda state: moments(state)["step"].fill_(-2.0),
    "moments of a list": lambda state: state["optimizer"][0].update(state=[]),
    "another decay": lambda state: state["optimizer"][0]["param_groups"][0].update(weight_decay=0.7),
    "another decay in a tensor": lambda state: state["optimizer"][0]["param_groups"][0].update(betas=torch.ones(2)),
    "a group missing": lambda state: state["optimizer"][0]["param_groups"].pop(),
}


def moments(state: dict[str, Any]) -> dict[str, Any]:
    """What the optimizer keeps of the first weight."""
    found: dict[str, Any] = state["optimizer"][0]["state"][0]
    return found


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_state_of_other_types_is_one_line(folder: Path, tmp_path: Path, change: Change) -> None:
    run = RunFolder(tmp_path / "run")
    go(folder, run.path, recipe(steps=2))
    state = run.load(torch.device("cpu"))
    assert state is not None
    change(state)
    run.save(state)
    saved = run.state.read_bytes()
    with pytest.raises(TrainingError) as caught:
        go(folder, run.path, recipe(steps=2))
    assert str(caught.value).startswith(f"{run.state} is no state of this run (")
    assert str(caught.value).endswith("; delete it to start anew, or name another run")
    assert "\n" not in str(caught.value)
    assert run.state.read_bytes() == saved


# --- several processes -----------------------------------------------------------------------------------------------

TRAIN = """
import sys
from pathlib import Path
from training import recipe
from minclip_torch.training.train import train
folder, *runs = map(Path, sys.argv[1:])
for run in runs:
    train(folder / "clip", folder / "data.jsonl", run, recipe(steps=30), every=1, progress=False)
"""


def started(folder: Path, *runs: Path) -> subprocess.Popen[str]:
    """A process that trains in one folder after the other, thirty steps in each."""
    words = [sys.executable, "-c", TRAIN, *map(str, (folder, *runs))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for_a_step(process: subprocess.Popen[str], run: Path) -> None:
    while process.poll() is None and not (run / "state.pt").exists():
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize("kills", [30])
def test_a_training_that_is_killed_again_and_again_loses_nothing(folder: Path, tmp_path: Path, kills: int) -> None:
    cut, whole, rng = tmp_path / "cut", tmp_path / "whole", random.Random(kills)
    killed = 0
    for _ in range(kills):
        process = started(folder, cut, whole)
        wait_for_a_step(process, cut)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 6))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
        process.communicate()
    assert killed > 0
    last = started(folder, cut, whole)
    _, error = last.communicate(timeout=300)
    assert (last.returncode, error) == (0, "")
    same_state(cut, whole)
    assert not list(cut.rglob("*.tmp"))


def test_a_second_trainer_in_a_folder_is_refused_until_the_first_one_ends_or_is_killed(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(folder, run)
    try:
        wait_for_a_step(process, run)
        process.send_signal(signal.SIGSTOP)
        before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
        with pytest.raises(TrainingError) as caught:
            go(folder, run, recipe(steps=30))
        assert str(caught.value) == f"another process trains in {run}; wait until it ends, or name another run folder"
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    finally:
        process.kill()
        process.communicate()
    go(folder, run, recipe(steps=30))


def test_a_folder_is_free_again_after_a_run_that_failed(folder: Path, tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    first.lock()
    with pytest.raises(TrainingError, match="another process trains in"):
        RunFolder(tmp_path).lock()
    first.unlock()
    with pytest.raises(MinclipError) as caught:
        go(folder, tmp_path, recipe(), "nowhere")
    RunFolder(tmp_path).lock()
    assert caught.value  # whose traceback keeps the failed run alive until here


def test_metrics_are_whole_lines(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 1 / 3})
    assert run.metrics.read_text().splitlines() == [json.dumps({"step": s, "loss": 0.333333}) for s in (1, 2, 3)]
    run.metrics.write_bytes(run.metrics.read_bytes() + b'[1]\n{"step": "4"}\n{"step": 4\n\xff\n{"step": 5}')
    assert [line["step"] for line in run.lines()] == [1, 2, 3]
    run.forget_after(2)
    assert [line["step"] for line in run.lines()] == [1, 2]
    run.log({"step": 3})
    assert [line["step"] for line in run.lines()] == [1, 2, 3]


def test_errors_of_a_run_are_minclips() -> None:
    assert issubclass(TrainingError, MinclipError)


def test_a_state_with_a_name_of_megabytes_is_refused_at_once(folder: Path, tmp_path: Path) -> None:
    """torch's message about an unknown type is searched in steps that grow with the square of its name."""
    run = tmp_path / "run"
    go(folder, run, recipe(steps=1))
    with zipfile.ZipFile(run / "state.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    pickle = next(name for name in parts if name.endswith("data.pkl"))
    parts[pickle] = b"\x80\x02ctorch\n" + b"x." * 500_000 + b"\n."
    with zipfile.ZipFile(run / "state.pt", "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(TrainingError, match="a name of 1000006 characters"):
        RunFolder(run).load(torch.device("cpu"))


def test_a_trainer_does_not_wait_for_its_own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever replaces a file waits for the folder's lock, which must not be the one that a trainer holds."""
    run = RunFolder(tmp_path)
    run.lock()
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    run.save({"step": 1})
    assert waits == []
