"""The script that makes the models in the box, with runs of a few steps on a dozen pictures."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from training import write_data

import minclip
from minclip import checkpoints
from minclip.config import Config, read_config
from minclip_torch.modules import Clip
from minclip_torch.training.miniatures import recipes
from minclip_torch.training.miniatures.recipes import STAGES, Stage, main, start

SHORT = {"steps": 2, "batch_size": 6, "compile": False}
TOWER = ("vision_model.", "visual_projection.", "logit_scale")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout that `minclip_torch.training.miniatures.pictures` writes."""
    folder = tmp_path_factory.mktemp("emoji")
    path = write_data(folder)
    (folder / "test.jsonl").write_bytes(path.read_bytes())
    (folder / "emoji.jsonl").write_bytes(path.read_bytes())
    path.rename(folder / "train.jsonl")
    return folder


def shortened() -> dict[str, tuple[Stage, ...]]:
    return {
        name: tuple(stage._replace(recipe=replace(stage.recipe, **SHORT)) for stage in stages)
        for name, stages in STAGES.items()
    }


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of all three, each of two steps."""
    runs = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "PIECES", 30)
        patch.setattr(recipes, "STAGES", shortened())
        assert main([str(data), str(runs)]) == 0
    return runs


def test_each_is_a_checkpoint_of_its_family(made: Path) -> None:
    for folder, family in (("clip-2", "clip"), ("metaclip-2-6", "metaclip_2"), ("altclip-1", "altclip")):
        model = minclip.load(made / folder / "model")
        assert model.config.model_type == family
        assert model.encode_text(["rouge"]).shape == (1, 192)


def test_only_clip_reads_english_alone(made: Path) -> None:
    for folder, languages in (
        ("clip-1", ["en"]),
        ("clip-2", ["en"]),
        ("metaclip-2-1", []),
        ("metaclip-2-6", []),
        ("altclip-1", []),
    ):
        assert json.loads((made / folder / "recipe.json").read_text())["languages"] == languages


def test_altclip_sees_with_clips_eyes(made: Path) -> None:
    _, clip = checkpoints.read(made / "clip-2" / "model")
    _, found = checkpoints.read(made / "altclip-1" / "model")
    for name in clip:
        if name.startswith(TOWER[:2]):
            np.testing.assert_array_equal(found[name], clip[name], err_msg=name)
    teacher = json.loads((made / "altclip-1" / "recipe.json").read_text())["teacher"]
    assert teacher == str(made / "clip-2" / "model")


def test_metaclip_2s_last_text_tower_is_taught_by_the_one_before_and_sees_with_its_eyes(made: Path) -> None:
    _, before = checkpoints.read(made / "metaclip-2-3" / "model")
    _, taught = checkpoints.read(made / "metaclip-2-4" / "model")
    for name in before:
        if name.startswith(TOWER):
            np.testing.assert_array_equal(taught[name], before[name], err_msg=name)
    token = "text_model.embeddings.token_embedding.weight"
    assert taught[token].shape[1] > before[token].shape[1]
    for run in ("metaclip-2-4", "metaclip-2-6"):
        teacher = json.loads((made / run / "recipe.json").read_text())["teacher"]
        assert teacher == str(made / "metaclip-2-3" / "model")


def test_metaclip_2_begins_with_nothing(made: Path) -> None:
    assert not list((made / "metaclip-2-1-start").glob("*.safetensors"))


def test_a_second_call_finds_the_runs_done(data: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "PIECES", 30)
    monkeypatch.setattr(recipes, "STAGES", shortened())
    before = (made / "altclip-1" / "model" / "model.safetensors").read_bytes()
    assert main([str(data), str(made), "--only", "altclip"]) == 0
    assert (made / "altclip-1" / "model" / "model.safetensors").read_bytes() == before


def test_a_stage_with_a_model_and_no_state_is_kept_and_gone_on_from(
    data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "STAGES", shortened())
    monkeypatch.setattr(recipes, "start", None)  # not called: nothing begins anew
    model = tmp_path / "clip-1" / "model"
    shutil.copytree(made / "clip-1" / "model", model)
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    assert main([str(data), str(tmp_path), "--only", "clip"]) == 0
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert [path.name for path in (tmp_path / "clip-1").iterdir()] == ["model"]
    found, wanted = (checkpoints.read(runs / "clip-2" / "model")[1] for runs in (tmp_path, made))
    for name in wanted:  # as if the first stage had been trained here
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)


def started(name: str, data: Path, folder: Path) -> Config:
    """The config of a miniature's last start."""
    *_, text = (stage.text for stage in STAGES[name] if stage.text)
    return read_config(start(name, data, folder, text))


@pytest.mark.parametrize("name", STAGES)
def test_a_start_says_how_long_a_text_may_be(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "PIECES", 30)
    config = started(name, data, tmp_path)
    assert config.text_config is not None
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert said["model_max_length"] == config.text_config.context_length


@pytest.mark.parametrize("name", STAGES)
def test_a_full_size_start_fits_the_box(name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision, with the vocabulary that it has when all names are there."""
    monkeypatch.setattr(recipes, "PIECES", 30)
    given = started(name, data, tmp_path).to_dict()
    given["text_config"]["vocab_size"] = recipes.BPE_SIZE if name == "clip" else 5002
    config = Config.from_dict(given)
    assert sum(p.numel() for p in Clip(config).parameters()) * 2 < 8.5e6


def test_no_clip_to_learn_from_is_said_in_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(recipes, "PIECES", 30)
    assert main([str(data), str(tmp_path), "--only", "altclip"]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("minclip: ")
    assert str(tmp_path / "clip-2" / "model") in line
    assert "\n" not in line


def test_too_few_names_for_the_vocabulary_are_said_in_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(data), str(tmp_path), "--only", "metaclip-2"]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith(f"minclip: {data / 'train.jsonl'} holds too few captions for 5000 pieces")
    assert "\n" not in line


def test_a_folder_that_is_no_data_set_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), str(tmp_path / "runs")]) == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith("minclip: ")
    assert "train.jsonl" in line
    assert "\n" not in line
