"""The fingerprint tells models apart, and finds one again wherever it lies and whatever computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minclip
from minclip.fingerprint import BLOCK, BLOCKS, fingerprint


def changed(folder: Path, name: str, index: int) -> str:
    """The fingerprint of a copy in which one number of a tensor is another."""
    copy = folder.with_name(f"{folder.name}-{name}-{index}")
    shutil.copytree(folder, copy)
    tensors = {key: array.copy() for key, array in load_file(copy / "model.safetensors").items()}
    tensors[name].reshape(-1)[index] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    return fingerprint(minclip.load(copy))


@pytest.fixture
def folder(miniature: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(miniature, tmp_path / "model"))


def test_place_backend_and_computing_type_do_not_enter(miniature: Path, folder: Path, tmp_path: Path) -> None:
    expected = fingerprint(minclip.load(miniature))
    assert len(expected) == 64
    assert fingerprint(minclip.load(folder)) == expected
    assert fingerprint(minclip.load(folder, dtype="float64")) == expected
    assert fingerprint(minclip.load(folder, backend="torch", device="cpu")) == expected
    minclip.load(folder).save(tmp_path / "saved")
    assert fingerprint(minclip.load(tmp_path / "saved")) == expected


def test_one_changed_number_of_a_small_tensor_changes_it(folder: Path) -> None:
    expected = fingerprint(minclip.load(folder))
    assert changed(folder, "visual_projection.weight", 0) != expected
    assert changed(folder, "text_model.final_layer_norm.bias", 17) != expected
    assert changed(folder, "logit_scale", 0) != expected


def test_of_a_large_tensor_both_ends_and_blocks_between_enter(folder: Path) -> None:
    name = "vision_model.embeddings.patch_embedding.weight"
    tensor = minclip.load(folder).weights[name]
    assert tensor.nbytes > BLOCKS * BLOCK
    expected = fingerprint(minclip.load(folder))
    assert len({expected, changed(folder, name, 0), changed(folder, name, -1)}) == 3
    assert changed(folder, name, int(np.linspace(0, tensor.size - BLOCK // 4, BLOCKS)[5])) != expected


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
        ("config.json", {"logit_scale_init_value": 1.5}),
    ],
)
def test_config_and_image_processor_enter(file: str, change: dict[str, object], folder: Path) -> None:
    expected = fingerprint(minclip.load(folder))
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | change))
    assert fingerprint(minclip.load(folder)) != expected
