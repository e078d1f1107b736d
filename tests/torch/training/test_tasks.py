"""The training tasks: images and captions as inference sees them, and a teacher's embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import entries, recipe, write_data, write_start

import minclip
from minclip_torch.training.dataset import draw_batch
from minclip_torch.training.recipe import RecipeError
from minclip_torch.training.train import Run, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl with its pictures, and two start folders."""
    made = tmp_path_factory.mktemp("tasks")
    write_data(made)
    for family in ("clip", "altclip"):
        write_start(made / family, family)
    return made


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """A small CLIP, a few steps on its way."""
    made = recipe(steps=5, learning_rate=0.01, average=0.5)
    train(folder / "clip", folder / "data.jsonl", folder / "trained", made, progress=False)
    return folder / "trained" / "model"


def test_the_loss_of_the_first_step_is_the_loaded_models(folder: Path, tmp_path: Path, trained: Path) -> None:
    made = recipe(augment=False, near_synonyms=0.0, languages=("en",))
    run = Run(trained, folder / "data.jsonl", tmp_path, made)
    task: Any = run.task
    batch = draw_batch(task.images, task.entries, task.captioner, 8, made.seed, 0, slice(0, 8))
    model = minclip.load(trained)
    inputs = model.processor(text=batch.texts)
    expected = model(**inputs, pixel_values=task.pixel_values(batch, 0).numpy(), return_loss=True).loss
    assert run.advance()["loss"] == pytest.approx(expected, abs=1e-5)


def test_unaugmented_pictures_are_as_the_image_processor_makes_them(folder: Path, tmp_path: Path) -> None:
    run = Run(folder / "clip", folder / "data.jsonl", tmp_path, recipe(augment=False))
    task: Any = run.task
    batch = draw_batch(task.images, task.entries, task.captioner, 12, 0, 0, slice(0, 12))
    found = task.pixel_values(batch, 0)
    for pixels, entry in zip(found, batch.entries, strict=True):
        expected = run.processor.image_processor([str(path) for path in task.entries[entry].images])
        off = min(float(np.abs(pixels.numpy() - one).mean()) for one in expected)
        assert off < 0.12  # one is smoothed a little more than the other; a standard deviation is 1


def test_a_text_tower_learns_from_a_teacher_without_any_picture(folder: Path, tmp_path: Path, trained: Path) -> None:
    blind = tmp_path / "data.jsonl"  # whose pictures are not there
    blind.write_text((folder / "data.jsonl").read_text())
    made = recipe(teacher=str(trained), steps=60, batch_size=12, learning_rate=0.01)
    run = Run(folder / "altclip", blind, tmp_path / "run", made, test=folder / "data.jsonl")
    before = {name: p.detach().clone() for name, p in run.named.items()}
    losses = [run.advance()["loss"] for _ in range(60)]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    for name, value in run.named.items():
        if name.startswith(("vision_model", "visual_projection", "logit_scale")):
            assert torch.equal(value, before[name]), name
    assert set(run.evaluate()) == {"top1", "top5"}  # pictures are held out, if not learned from

    model = run.model.eval()
    ids, mask = run._tokenize([line["captions"]["fr"][0] for line in entries()])
    english = minclip.load(trained).encode_text([line["captions"]["en"][0] for line in entries()])
    with torch.no_grad():
        cosines = model.embed_texts(ids, mask).numpy() @ english.T
    assert cosines.diagonal().mean() > 0.8  # French names lie where the teacher puts the English ones


def test_a_teacher_is_asked_for_heavier_entries_more_often(folder: Path, tmp_path: Path, trained: Path) -> None:
    heavy, *others = entries()
    lines = [{**heavy, "weight": 30 * len(others)}, *others]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    made = recipe(teacher=str(trained), batch_size=12, framed=0.0)
    task: Any = Run(folder / "altclip", tmp_path / "data.jsonl", tmp_path, made, test=folder / "data.jsonl").task
    asked: list[str] = []
    tokenize = task.tokenize
    task.tokenize = lambda texts: (asked.extend(texts), tokenize(texts))[1]
    for step in range(20):
        task(step)
    names = {text for texts in heavy["captions"].values() for text in texts}
    assert 0.9 < np.mean([text.lower().rstrip(".") in names for text in asked]) < 1  # 30 of 31


def test_a_teacher_that_is_no_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^teacher .*nowhere is no folder; name that of a checkpoint$"):
        Run(tmp_path / "no", tmp_path / "no", tmp_path / "run", recipe(teacher=str(tmp_path / "nowhere")))
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_width_is_refused(folder: Path, tmp_path: Path, miniature: Path) -> None:
    with pytest.raises(RecipeError, match=r"embeds in 32 dimensions and the student in 8"):
        Run(folder / "altclip", folder / "data.jsonl", tmp_path, recipe(teacher=str(miniature)))
