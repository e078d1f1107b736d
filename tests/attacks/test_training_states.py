"""The state of a training, damaged: it resumes with the very state, or one of its kind whose checksums are right."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import training
from attack import attack, counts, needs_timer
from mutators import BYTES, ZIP, mutated

from minclip_torch.training.run_folder import TrainingError
from minclip_torch.training.train import Run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of two steps, at its end, whose folder holds its state."""
    folder = tmp_path_factory.mktemp("states")
    data = training.write_data(folder)
    training.write_start(folder / "clip")
    recipe = training.recipe(steps=2, optimizer="muon")
    train(folder / "clip", data, folder / "run", recipe, every=2, progress=False)
    found = Run(folder / "clip", data, folder / "run", recipe)
    yield found
    found.close()


def held(run: Run) -> dict[str, Any]:
    """What a run has in memory of its state."""
    weights = {name: p.detach().clone() for name, p in run.named.items()}
    average = {name: value.clone() for name, value in run.average.items()}
    return {"step": run.step, "weights": weights, "average": average, "optimizer": run.optimizer.state_dict()}


def tensors(nest: Any) -> Iterator[torch.Tensor]:
    if isinstance(nest, torch.Tensor):
        yield nest
    elif isinstance(nest, dict | list | tuple):
        for value in nest.values() if isinstance(nest, dict) else nest:
            yield from tensors(value)


def attacked(run: Run, table: list[Any], count: int, same: bool) -> None:
    path, rng = run.folder.state, random.Random(f"{same} {count}")
    whole, recipe = path.read_bytes(), run.recipe
    run._resume()
    expected = held(run)

    def use(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        run._resume()
        found = held(run)
        if same:
            assert training.identical(found, expected)
        assert 0 <= found["step"] <= recipe.steps
        assert all(value.isfinite().all() for value in tensors(found))
        for part in ("weights", "average"):
            assert {n: v.shape for n, v in found[part].items()} == {n: v.shape for n, v in expected[part].items()}

    try:
        found = attack(use, (mutated(whole, table, rng) for _ in range(count)), TrainingError)
    finally:
        path.write_bytes(whole)
    print(f"state.pt{'' if same else ', checksums right'}: {found}")
    assert found.total() == count
    assert found["refused"] > count // 5


@needs_timer
@counts(25, 500)
def test_a_damaged_state_is_refused_or_resumes_the_very_run(count: int, run: Run) -> None:
    attacked(run, BYTES, count, same=True)


@needs_timer
@counts(25, 500)
def test_another_state_under_right_checksums_is_refused_or_finite(count: int, run: Run) -> None:
    attacked(run, ZIP, count, same=False)
