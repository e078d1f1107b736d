import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from safetensors.torch import load_file, save_file

from minclip import checkpoints
from minclip.errors import CheckpointError, ConfigError

# --- folders that Transformers saved -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", folders.KINDS)
def test_a_folder_holds_the_tensors_that_transformers_saved(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    model = folders.peer(kind).to(dtype)
    model.save_pretrained(tmp_path)
    config, weights = checkpoints.read(tmp_path)
    assert config.architectures == (kind,)
    folders.assert_equal(weights, folders.tensors(model))


@pytest.mark.parametrize("kind", folders.KINDS)
def test_shards_are_joined(tmp_path: Path, kind: str) -> None:
    model = folders.peer(kind)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    files = checkpoints.weight_files(tmp_path)
    assert len(files) > 2
    assert files == sorted(tmp_path.glob("*.safetensors"))
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "open_clip_model.safetensors", "x.safetensors"])
def test_a_lone_weight_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / name)
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


@pytest.mark.parametrize("kind", [kind for kind in folders.KINDS if "TextModel" in kind or "VisionModel" in kind])
def test_a_single_tower_without_architectures_is_known_by_its_tensors(tmp_path: Path, kind: str) -> None:
    folders.peer(kind).save_pretrained(tmp_path)
    folders.edit_config(tmp_path, architectures=None)
    config, weights = checkpoints.read(tmp_path)
    assert config.architectures == (kind,)
    assert config.has_projection == any("projection" in name for name in weights)


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("family", ["CLIP", "MetaClip2"])
def test_a_classifier_has_as_many_labels_as_rows(tmp_path: Path, family: str, labels: int) -> None:
    """Transformers leaves the labels out of the config where there are two."""
    model = folders.peer(f"{family}ForImageClassification", labels)
    model.save_pretrained(tmp_path)
    config, weights = checkpoints.read(tmp_path)
    assert config.id2label == model.config.id2label
    assert len(weights["classifier.weight"]) == labels


# --- bad folders ---------------------------------------------------------------------------------------------------


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def replace_weights(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).write_bytes(b"pickled")
        (folder / "model.safetensors").unlink()

    return damage


def edit(**tensors: torch.Tensor | None) -> Callable[[Path], None]:
    """Set tensors; `__` in a name stands for a point, None takes the tensor out."""
    changes = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return lambda folder: folders.rewrite(
        folder, lambda state: {name: t for name, t in {**state, **changes}.items() if t is not None}
    )


def set_layers(folder: Path) -> None:
    text = {**json.loads((folder / "config.json").read_text())["text_config"], "num_hidden_layers": 10**12}
    folders.edit_config(folder, text_config=text)


def make_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


def copy_weights(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").rename(folder / "one.safetensors")


BAD_FOLDERS: dict[str, tuple[Callable[[Path], Any], type[Exception], tuple[str, ...]]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), CheckpointError, ("no weights", "model.safetensors")),
    "no config": (lambda f: (f / "config.json").unlink(), ConfigError, ("config.json", "does not exist")),
    "a torch file that is none": (replace_weights("pytorch_model.bin"), CheckpointError, ("pytorch_model.bin",)),
    "more torch files": (
        replace_weights("a.pt", "b.pth", "c.ckpt", "d.bin"),
        CheckpointError,
        ("4 weight files (a.pt, b.pth, c.ckpt, ...)", "name that file"),
    ),
    "a pickle of no tensors": (replace_weights("model.pkl"), CheckpointError, ("no weights", "pytorch_model.bin")),
    "truncated": (truncate, CheckpointError, ("model.safetensors", "not a whole safetensors file")),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), CheckpointError, ("model.safetensors",)),
    "a folder": (make_folder, CheckpointError, ("model.safetensors",)),
    "missing tensor": (
        edit(visual_projection__weight=None),
        CheckpointError,
        ("model.safetensors", "1 missing: visual_projection.weight (9, 24)"),
    ),
    "extra tensor": (
        edit(logit_bias=torch.zeros(())),
        CheckpointError,
        ("1 unexpected: logit_bias () in model.safetensors",),
    ),
    "wrong shape": (
        edit(text_projection__weight=torch.zeros(16, 9)),
        CheckpointError,
        ("1 wrong shape: text_projection.weight (16, 9) in model.safetensors instead of (9, 16)",),
    ),
    "float8": (
        edit(text_projection__weight=torch.zeros(9, 16).to(torch.float8_e4m3fn)),
        CheckpointError,
        ("text_projection.weight", "F8_E4M3"),
    ),
    "integers": (
        edit(text_projection__weight=torch.zeros(9, 16, dtype=torch.int8)),
        CheckpointError,
        ("text_projection.weight", "I8"),
    ),
    "another model": (
        lambda f: (
            folders.peer("CLIPVisionModel").save_pretrained(f / "x")
            or (f / "x/model.safetensors").replace(f / "model.safetensors")
        ),
        CheckpointError,
        ("missing: text_model.embeddings.token_embedding.weight (20, 16)", "unexpected: ", ", ..."),
    ),
    "endless layers": (set_layers, CheckpointError, ("1000000000000 layers",)),
    "two files": (
        copy_weights,
        CheckpointError,
        ("one.safetensors, other.safetensors", "safetensors.index.json", "name that file"),
    ),
}


def assert_refused(folder: Path, error: type[Exception], words: tuple[str, ...]) -> None:
    with pytest.raises(error) as caught:
        checkpoints.read(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    for word in (str(folder), *words):
        assert word in message


@pytest.mark.parametrize("fault", BAD_FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    damage, error, words = BAD_FOLDERS[fault]
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    damage(tmp_path)
    assert_refused(tmp_path, error, words)


def edit_index(change: Callable[[dict[str, str]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "model.safetensors.index.json"
        places = json.loads(path.read_text())["weight_map"]
        path.write_text(json.dumps({"weight_map": change(places) or places}))

    return damage


def repeat_a_tensor(folder: Path) -> None:
    first, second, *_ = checkpoints.weight_files(folder)
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)


BAD_SHARDS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "missing shard": (
        lambda f: checkpoints.weight_files(f)[1].unlink(),
        ("index.json", "model-00002-of-", "not there"),
    ),
    "truncated shard": (
        lambda f: checkpoints.weight_files(f)[1].write_bytes(b"x"),
        ("model-00002-of-", "not a whole safetensors file"),
    ),
    "tensor not in its shard": (
        edit_index(lambda places: {**places, "logit_scale": max(places.values())}),
        ("lacks tensor logit_scale", "index.json"),
    ),
    "tensor in two shards": (repeat_a_tensor, ("is there twice", "model-00001-of-", "model-00002-of-")),
    "shard elsewhere": (
        edit_index(lambda places: {**places, "logit_scale": "../model.safetensors"}),
        ("index.json", "beside it"),
    ),
    "a shard that is no name": (edit_index(lambda places: {**places, "logit_scale": 3}), ("index.json", "beside it")),
    "no map": (lambda f: (f / "model.safetensors.index.json").write_text("{}"), ("index.json", "weight_map")),
    "a list": (lambda f: (f / "model.safetensors.index.json").write_text("[]"), ("index.json", "JSON object")),
    "no JSON": (lambda f: (f / "model.safetensors.index.json").write_text("{"), ("index.json", "JSON")),
    "endless JSON": (
        lambda f: (f / "model.safetensors.index.json").write_text("[" * 100_000),
        ("index.json", "JSON"),
    ),
}


@pytest.mark.parametrize("fault", BAD_SHARDS)
def test_bad_shards_are_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    damage, words = BAD_SHARDS[fault]
    folders.peer("CLIPModel").save_pretrained(tmp_path, max_shard_size="8KB")
    damage(tmp_path)
    assert_refused(tmp_path, CheckpointError, words)
