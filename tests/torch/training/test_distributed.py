"""Two processes that train as one, and that stop as one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from training import metrics, recipe, write_data, write_start

from minclip.errors import BackendError, MinclipError
from minclip_torch.training.distributed import all_gather, all_or_none, process_group, rank, world_size
from minclip_torch.training.recipe import Recipe
from minclip_torch.training.train import train

# Each process goes through the commands given to it, on the port given with each.
SCRIPT = """
import json, os, sys
import torch
from minclip_torch.training.__main__ import main
torch.set_num_threads(1)
codes = []
for port, command in json.loads(sys.argv[1]):
    os.environ["MASTER_PORT"] = str(port)
    codes.append(main(command))
    print("=====" , file=sys.stderr, flush=True)
print(json.dumps(codes))
"""


class Outcome(NamedTuple):
    """What two processes made of a command: exit codes and last words."""

    codes: list[int]
    said: list[str]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for found in sockets:
        found.bind(("127.0.0.1", 0))
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def in_two_processes(commands: list[tuple[list[str], list[str]]]) -> list[Outcome]:
    """Each command as the two processes are given it. They start once: importing torch takes longest."""
    ports = free_ports(len(commands))
    started = []
    for own in range(2):
        settings = {"MASTER_ADDR": "127.0.0.1", "RANK": str(own), "LOCAL_RANK": str(own), "WORLD_SIZE": "2"}
        asked = json.dumps([(port, command[own]) for port, command in zip(ports, commands, strict=True)])
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, asked],
                env={**os.environ, **settings, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        answers = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], answers
    codes = [json.loads(out) for out, _ in answers]
    said = [[words.strip() for words in err.split("=====")] for _, err in answers]
    return [Outcome([own[i] for own in codes], [own[i] for own in said]) for i in range(len(commands))]


def flags(made: Recipe) -> list[str]:
    """A recipe as flags."""
    found: list[str] = []
    for name, value in asdict(made).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            found.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            found += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return found


PLAIN = recipe(steps=3, chunk_size=3)
MUON = recipe(steps=2, optimizer="muon", weight_decay=0.0)
FIRST_OUT = recipe(steps=5, chunk_size=3)


class Arena(NamedTuple):
    """Where the runs lie, and what came of them."""

    folder: Path
    outcomes: dict[str, Outcome]


def single(arena: Arena, name: str, family: str, made: Recipe) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same run in this one process: its state and metrics."""
    folder = arena.folder
    data = folder / "data" / "data.jsonl"
    train(folder / family, data, folder / f"one-{name}", made, test=data, every=1, progress=False)
    return torch.load(folder / f"one-{name}" / "state.pt", weights_only=True), metrics(folder / f"one-{name}")


def learned(name: str, value: torch.Tensor) -> torch.Tensor:
    """Without the bias of the keys, which moves no probability: its gradient is rounding, and AdamW blows that up."""
    if not name.endswith("qkv.bias"):
        return value
    query, _, values = value.chunk(3)
    return torch.cat([query, values])


def together_run(arena: Arena, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return torch.load(arena.folder / name / "state.pt", weights_only=True), metrics(arena.folder / name)


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Arena:
    folder = tmp_path_factory.mktemp("arena")
    data = test = write_data(folder / "data")
    write_start(folder / "clip")
    write_start(folder / "altclip", "altclip", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    single(Arena(folder, {}), "teacher", "clip", recipe(steps=1))

    def command(start: str, run: str, made: Recipe, data: Path = data) -> list[str]:
        return [*map(str, (folder / start, data, folder / run, "--test", test, "--every", 1)), *flags(made)]

    asked = {
        "plain": (command("clip", "plain", PLAIN),) * 2,
        "another recipe": (command("clip", "plain", FIRST_OUT),) * 2,
        "another folder": (command("clip", "plain", PLAIN), command("clip", "elsewhere", PLAIN)),
        "no share": (command("clip", "odd", recipe(batch_size=7)),) * 2,
        "no data for one": (
            command("clip", "blind", PLAIN),
            command("clip", "blind", PLAIN, data=folder / "absent.jsonl"),
        ),
        "muon": (command("clip", "muon", MUON),) * 2,
        "distillation": (
            command("altclip", "distillation", recipe(steps=2, teacher=str(folder / "one-teacher" / "model"))),
        )
        * 2,
    }
    return Arena(folder, dict(zip(asked, in_two_processes(list(asked.values())), strict=True)))


@pytest.mark.parametrize(
    ("name", "family", "made"), [("plain", "clip", PLAIN), ("muon", "clip", MUON), ("distillation", "altclip", None)]
)
def test_two_processes_come_to_the_weights_of_one(arena: Arena, name: str, family: str, made: Recipe | None) -> None:
    assert arena.outcomes[name].codes == [0, 0]
    made = made or recipe(steps=2, teacher=str(arena.folder / "one-teacher" / "model"))
    (one, one_said), (two, two_said) = single(arena, name, family, made), together_run(arena, name)
    for part in ("model", "average"):
        assert set(one[part]) == set(two[part])
        for key in one[part]:
            off = (learned(key, two[part][key]) - learned(key, one[part][key])).abs()
            if name == "muon":  # it orthogonalizes in bfloat16, where the last bit of a sum in another order shows
                assert off.mean() < 5e-5, key  # a step moves a weight by 4e-4
            else:
                assert off.max() < 2e-6, key
    assert two["step"] == one["step"]
    assert [line["step"] for line in two_said] == [line["step"] for line in one_said]  # each line written once
    for ours, theirs in zip(two_said, one_said, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3 if name == "muon" else 2e-5, rel=1e-5)
    assert (arena.folder / name / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("another recipe", "holds another run: steps 3, not 5; name another folder"),
        ("another folder", "the processes found states of steps [3, 0]"),
        ("no share", "batch_size 7 does not split over 2 processes; take a multiple"),
        ("no data for one", "absent.jsonl cannot be read"),
    ],
)
def test_what_one_process_refuses_all_refuse_and_none_waits(arena: Arena, name: str, message: str) -> None:
    outcome = arena.outcomes[name]
    assert outcome.codes == [1, 1]
    for said in outcome.said:
        last = said.splitlines()[-1]
        assert last.startswith("minclip: ")
        assert message in last


def test_a_refused_run_changes_no_file(arena: Arena) -> None:
    assert json.loads((arena.folder / "plain" / "recipe.json").read_text())["steps"] == 3
    assert not any((arena.folder / name).exists() for name in ("odd", "blind", "elsewhere"))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "9")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BackendError, match="process 2 of this machine finds 2 GPUs"), process_group("cuda"):
        pass


def test_alone_a_process_is_the_first_and_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group("cpu"):
        assert (rank(), world_size(), all_gather("me")) == (0, 1, ["me"])
    with pytest.raises(MinclipError, match="no"), all_or_none():
        raise MinclipError("no")
