import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import minclip
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


# --- torch files, and files of other frameworks --------------------------------------------------------------------


@pytest.mark.parametrize("kind", folders.KINDS)
def test_a_folder_with_a_torch_file_holds_the_tensors_that_torch_saved(tmp_path: Path, kind: str) -> None:
    model = folders.peer(kind)
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    config, weights = checkpoints.read(tmp_path)
    assert config.architectures == (kind,)
    folders.assert_equal(weights, folders.tensors(model))


def test_torch_shards_are_joined(tmp_path: Path) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    folders.save_torch_shards(tmp_path, model)
    assert [path.name for path in checkpoints.weight_files(tmp_path)] == [
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
    ]
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


ORDER = [
    "model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
]  # fmt: skip


def test_weight_files_have_an_order_of_preference(tmp_path: Path) -> None:
    """Safetensors first, the names of Transformers first, and a name that nobody knows last."""
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    for name in [*ORDER, "metaclip_original.bin", "ViT-B-32.pt", "training_args.bin", "optimizer.pt"]:
        (tmp_path / name).write_bytes(b"")
    for name in ORDER:
        assert checkpoints.weight_files(tmp_path) == [tmp_path / name]
        (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=r"2 weight files \(ViT-B-32\.pt, metaclip_original\.bin\)"):
        checkpoints.weight_files(tmp_path)
    (tmp_path / "ViT-B-32.pt").unlink()
    assert checkpoints.weight_files(tmp_path) == [tmp_path / "metaclip_original.bin"]


@pytest.mark.parametrize("name", ["other.safetensors", "other.bin", "other.pt"])
def test_a_weight_file_of_a_folder_may_be_named_itself(tmp_path: Path, name: str) -> None:
    first, second = folders.peer("CLIPModel"), folders.peer("CLIPModel", seed=1)
    first.save_pretrained(tmp_path)
    write = save_file if name.endswith(".safetensors") else torch.save
    write(second.state_dict(), tmp_path / name)
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(first))
    folders.assert_equal(checkpoints.read(tmp_path / name)[1], folders.tensors(second))


@pytest.mark.parametrize("kind", ["CLIPModel", "CLIPVisionModel", "MetaClip2ForImageClassification"])
def test_patch_convolutions_with_channels_last_are_turned(tmp_path: Path, kind: str) -> None:
    """As MLX has them: (d, patch, patch, c)."""
    model = folders.peer(kind)
    model.save_pretrained(tmp_path)
    folders.rewrite(
        tmp_path,
        lambda state: {name: t.permute(0, 2, 3, 1) if t.ndim == 4 else t for name, t in state.items()},
    )
    folders.assert_equal(checkpoints.read(tmp_path)[1], folders.tensors(model))


# --- OpenAI's lone files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide() -> Any:
    """A CLIP whose heads are 64 wide, as all of OpenAI's are."""
    text = {**folders.TEXT, "hidden_size": 64, "num_attention_heads": 1, "eos_token_id": 2}
    vision = {**folders.VISION, "hidden_size": 128, "num_attention_heads": 2, "image_size": 12}
    torch.manual_seed(0)
    return transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=9)
    ).eval()


@pytest.mark.parametrize("text", ["", "text."])
@pytest.mark.parametrize("name", ["ViT-B-32.pt", "open_clip_pytorch_model.bin", "clip.safetensors"])
def test_a_lone_file_in_openai_names_needs_no_config(tmp_path: Path, wide: Any, name: str, text: str) -> None:
    state = {name: t.contiguous().clone() for name, t in folders.as_openai(wide.state_dict(), text).items()}
    (save_file if name.endswith(".safetensors") else torch.save)(state, tmp_path / name)
    config, weights = checkpoints.read(tmp_path / name)
    folders.assert_equal(weights, folders.tensors(wide))
    assert config.text_config is not None
    assert config.text_config.pools_largest_id
    ids, pixels = torch.tensor([[0, 5, 7, 19]]), torch.linspace(-1, 1, 3 * 12 * 12).reshape(1, 3, 12, 12)
    with torch.inference_mode():
        expected = wide(input_ids=ids, pixel_values=pixels).logits_per_image.numpy()
    found = minclip.load(tmp_path / name)(input_ids=ids.numpy(), pixel_values=pixels.numpy()).logits_per_image
    np.testing.assert_allclose(found, expected, atol=1e-4)
    with pytest.raises(minclip.TokenizerError, match="no tokenizer files"):
        minclip.load(tmp_path / name).encode_text("a cat")


@pytest.mark.parametrize("name", ["alone.pt", "alone.safetensors"])
def test_a_lone_file_in_other_names_wants_its_config(tmp_path: Path, name: str) -> None:
    state = folders.peer("CLIPModel").state_dict()
    (save_file if name.endswith(".safetensors") else torch.save)(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"alone\..* config\.json") as caught:
        checkpoints.read(tmp_path / name)
    assert "\n" not in str(caught.value)


# --- files that change while they are in use -----------------------------------------------------------------------


def cut(path: Path) -> None:
    os.truncate(path, 1000)


def rewrite_in_place(path: Path) -> None:
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[:-100] + bytes(100))


@pytest.mark.parametrize("change", [cut, rewrite_in_place])
@pytest.mark.parametrize("kind", ["safetensors", "torch", "shards"])
def test_a_file_that_is_written_to_while_it_is_mapped_is_noticed(
    tmp_path: Path, kind: str, change: Callable[[Path], None]
) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path, max_shard_size="16KB" if kind == "shards" else "1GB")
    if kind == "torch":
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    _, weights = checkpoints.read(tmp_path)
    weights.check_unchanged()
    path = checkpoints.weight_files(tmp_path)[-1]
    os.utime(path, ns=(0, 0))  # as copies that keep times have it
    _, weights = checkpoints.read(tmp_path)
    change(path)
    for view in (weights, weights.at("text_model"), weights.astype(np.float64), weights.widened()):
        with pytest.raises(CheckpointError, match=f"{path.name} was changed while its weights were in use"):
            view.check_unchanged()


@pytest.mark.parametrize("change", [cut, rewrite_in_place])
def test_weights_in_memory_do_not_mind_what_becomes_of_their_file(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    model = folders.peer("CLIPModel")
    model.save_pretrained(tmp_path)
    _, weights = checkpoints.read(tmp_path, mmap=False)
    change(tmp_path / "model.safetensors")
    weights.check_unchanged()
    folders.assert_equal(weights, folders.tensors(model))


def test_a_file_that_another_takes_the_place_of_is_still_the_old_one(tmp_path: Path) -> None:
    """As minclip itself saves, and as package managers and the hub's cache update."""
    first, second = folders.peer("CLIPModel"), folders.peer("CLIPModel", seed=1)
    first.save_pretrained(tmp_path / "first")
    second.save_pretrained(tmp_path / "second")
    _, weights = checkpoints.read(tmp_path / "first")
    checkpoints.save(tmp_path / "first", *checkpoints.read(tmp_path / "second"))
    weights.check_unchanged()
    folders.assert_equal(weights, folders.tensors(first))


# --- numbers that cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("scale", [89.0, 1000.0, float("nan"), float("inf"), float("-inf"), 88.5])
def test_a_logit_scale_without_a_finite_exponential_is_refused(
    tmp_path: Path, scale: float, dtype: torch.dtype
) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    folders.rewrite(tmp_path, lambda state: state | {"logit_scale": torch.tensor(scale, dtype=dtype)})
    with pytest.raises(CheckpointError, match=r"model\.safetensors: logit_scale is (nan|-?inf|\d+)") as caught:
        checkpoints.read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [4.6052, 88.0, -1000.0, 0.0])
def test_any_logit_scale_with_finite_differences_of_logits_is_read(tmp_path: Path, scale: float) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    folders.rewrite(tmp_path, lambda state: state | {"logit_scale": torch.tensor(scale)})
    _, weights = checkpoints.read(tmp_path)
    assert np.isfinite(np.float32(2) * np.exp(weights["logit_scale"]))


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
    "a pipe": (
        lambda f: ((f / "model.safetensors").unlink(), os.mkfifo(f / "model.safetensors")),
        CheckpointError,
        ("model.safetensors", "device or pipe"),
    ),
    "a config that is a pipe": (
        lambda f: ((f / "config.json").unlink(), os.mkfifo(f / "config.json")),
        ConfigError,
        ("config.json", "device or pipe"),
    ),
    "a config without end": (
        lambda f: ((f / "config.json").unlink(), (f / "config.json").symlink_to("/dev/zero")),
        ConfigError,
        ("config.json", "device or pipe"),
    ),
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
