"""What `checkpoints.save` writes, as Transformers and `checkpoints.read` find it."""

from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from minclip import checkpoints
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.weights import BFLOAT16, Weights


def answer(model: Any) -> list[torch.Tensor]:
    """What a model says to fixed inputs."""
    ids, pixels = torch.tensor([[0, 5, 7, 19], [0, 3, 19, 1]]), torch.linspace(-1, 1, 3 * 11 * 11).reshape(1, 3, 11, 11)
    kind, dtype = type(model).__name__, next(model.parameters()).dtype
    inputs = {} if "Vision" in kind or "Image" in kind else {"input_ids": ids, "attention_mask": (ids != 1).long()}
    inputs |= {} if "Text" in kind else {"pixel_values": pixels.to(dtype)}
    with torch.no_grad():
        return [value for value in model(**inputs).to_tuple() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("kind", folders.KINDS)
def test_transformers_opens_what_is_saved(tmp_path: Path, kind: str) -> None:
    model = folders.peer(kind)
    model.save_pretrained(tmp_path / "theirs")
    checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"))
    opened, report = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    for found, expected in zip(opened.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)
    for found, expected in zip(answer(opened), answer(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", folders.KINDS)
def test_a_saved_checkpoint_reads_back_bit_for_bit(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    folders.peer(kind).to(dtype).save_pretrained(tmp_path / "theirs")
    config, weights = checkpoints.read(tmp_path / "theirs")
    checkpoints.save(tmp_path / "ours", config, weights)
    config_back, back = checkpoints.read(tmp_path / "ours")
    assert config_back == config
    assert set(back) == set(weights)
    for name in weights:
        assert back.stored(name).dtype == weights.stored(name).dtype
        assert back.stored(name).tobytes() == weights.stored(name).tobytes()


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_saving_in_another_type_rounds_as_transformers_does(tmp_path: Path, dtype: str, stored: torch.dtype) -> None:
    model = folders.peer("CLIPModel").to(stored)
    model.save_pretrained(tmp_path / "theirs")
    checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"), dtype=dtype)
    _, back = checkpoints.read(tmp_path / "ours")
    assert {back.stored(name).dtype for name in back} == {BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)}
    folders.assert_equal(back, folders.tensors(model.to(getattr(torch, dtype))))
    assert transformers.CLIPModel.from_pretrained(tmp_path / "ours").dtype == getattr(torch, dtype)


def test_openai_names_are_saved_under_the_names_of_transformers(tmp_path: Path) -> None:
    """The turned projections, too, which are no contiguous views."""
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)
    folders.rewrite(tmp_path, folders.as_openai)
    checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path))
    folders.assert_equal(Weights(load_file_as_numpy(tmp_path / "ours")), folders.tensors(model))


def load_file_as_numpy(folder: Path) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_save_that_fails_halfway_leaves_the_old_model_alone(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    before = content(tmp_path)
    config, weights = checkpoints.read(tmp_path)
    huge = {name: np.full_like(weights[name], 1e30) if "post" in name else weights[name] for name in weights}
    with pytest.raises(CheckpointError, match=r"vision_model\.post_layernorm\.bias has numbers too large for float16"):
        checkpoints.save(tmp_path, config, Weights(huge), dtype="float16")
    assert content(tmp_path) == before


def test_a_checkpoint_may_be_saved_over_itself(tmp_path: Path) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)
    config, weights = checkpoints.read(tmp_path)
    checkpoints.save(tmp_path, config, weights, dtype="float16")
    folders.assert_equal(weights, folders.tensors(model))  # still the old file's
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model.half()))
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    assert not list(tmp_path.glob("*.tmp")) + list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logit_scale": None}, "1 missing: logit_scale"),
        ({"more": np.zeros(2, np.float32)}, "1 unexpected: more"),
        ({"logit_scale": np.zeros(2, np.float32)}, "1 wrong shape: logit_scale"),
        ({"logit_scale": np.zeros((), np.int64)}, "logit_scale is of type int64"),
    ],
)
def test_weights_that_do_not_fit_are_not_saved(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    config, weights = checkpoints.read(tmp_path / "theirs")
    changed = {name: array for name, array in ({**weights} | change).items() if array is not None}
    with pytest.raises(CheckpointError, match=words):
        checkpoints.save(tmp_path / "ours", config, Weights(changed))
    assert not (tmp_path / "ours").exists() or not content(tmp_path / "ours")


def test_a_type_that_no_file_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dtype 'int8' is not one of float32, float16, bfloat16"):
        checkpoints.save(tmp_path, Config(), Weights({}), dtype="int8")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file cannot be written"):
        checkpoints.save(tmp_path / "file", *checkpoints.read(tmp_path))
