"""What `checkpoints.save` writes, as Transformers and `checkpoints.read` find it."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from threading import Barrier, Thread
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


# --- whole or not at all -------------------------------------------------------------------------------------------

FILES = {"vocab.json": b"{}", "merges.txt": b"a b\n", "preprocessor_config.json": b"{}"}


def scaled(folder: Path, factor: float) -> Weights:
    """The weights of a folder, each times a factor."""
    _, weights = checkpoints.read(folder)
    return Weights({name: weights[name] * np.float32(factor) for name in weights})


def test_all_files_of_a_checkpoint_are_written(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"), FILES)
    found = content(tmp_path / "ours")
    assert found.keys() == {"config.json", "model.safetensors", *FILES}
    assert {name: found[name] for name in FILES} == FILES


def test_files_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    foreign = {"README.md": b"mine", "model.safetensors.bak": b"mine", ".hidden": b"mine", "notes.json": b"{}"}
    (tmp_path / "ours" / "runs").mkdir(parents=True)
    for name, data in foreign.items():
        (tmp_path / "ours" / name).write_bytes(data)
    for _ in range(2):
        checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"), FILES)
    assert {name: (tmp_path / "ours" / name).read_bytes() for name in foreign} == foreign
    assert (tmp_path / "ours" / "runs").is_dir()


LEFTOVERS = [
    "tokenizer.json", "sentencepiece.bpe.model", "added_tokens.json", "processor_config.json",
    "open_clip_config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin",
]  # fmt: skip


@pytest.mark.parametrize("name", LEFTOVERS)
def test_the_parts_of_another_checkpoint_are_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    """They would be read together with what is saved, or instead of it, here or in Transformers."""
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / name).write_bytes(b"another's")
    with pytest.raises(CheckpointError, match=f"ours holds files of another checkpoint.*: {name}; remove") as caught:
        checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"), FILES)
    assert "\n" not in str(caught.value)
    assert content(tmp_path / "ours") == {name: b"another's"}


def test_a_model_saved_where_it_came_from_keeps_the_further_files_of_its_folder(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"its own")
    checkpoints.save(tmp_path, *checkpoints.read(tmp_path), FILES)
    assert content(tmp_path).items() >= {**FILES, "tokenizer.json": b"its own"}.items()


LIMITED = """
import resource, sys
from minclip import CheckpointError, checkpoints
config, weights = checkpoints.read(sys.argv[1])
files = {"vocab.json": bytes(200_000), "merges.txt": b"new", "preprocessor_config.json": b"{}"}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    checkpoints.save(sys.argv[2], config, weights, files)
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the system has no limits to the size of files")
@pytest.mark.parametrize("limit", [0, 1000, 50_000, 150_000])
def test_a_disk_that_takes_no_more_leaves_the_old_checkpoint(tmp_path: Path, limit: int) -> None:
    """The limit is met in the weights, and after them in a file of the tokenizer."""
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    checkpoints.save(tmp_path / "ours", *checkpoints.read(tmp_path / "theirs"), FILES)
    assert 50_000 < (tmp_path / "ours" / "model.safetensors").stat().st_size < 150_000
    before = content(tmp_path / "ours")
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "theirs"), str(tmp_path / "ours"), str(limit)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "ours cannot be written: [Errno 27] File too large" in out
    assert len(out.splitlines()) == 1
    assert content(tmp_path / "ours") == before


def test_two_threads_that_save_to_one_folder_leave_the_checkpoint_of_one_of_them(tmp_path: Path) -> None:
    folders.peer("CLIPModel").save_pretrained(tmp_path / "theirs")
    config, _ = checkpoints.read(tmp_path / "theirs")
    models = [scaled(tmp_path / "theirs", factor) for factor in (0.25, 0.5, 0.75, 1)]
    barrier, problems = Barrier(4), []

    def save(i: int) -> None:
        files = dict.fromkeys(FILES, b"%d" % i)
        barrier.wait()
        try:
            checkpoints.save(tmp_path / "ours", config, models[i], files)
        except Exception as error:
            problems.append(error)

    for _ in range(10):
        threads = [Thread(target=save, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not problems
        (winner,) = {int((tmp_path / "ours" / name).read_bytes()) for name in FILES}
        folders.assert_equal(checkpoints.read(tmp_path / "ours")[1], dict(models[winner]))
        assert content(tmp_path / "ours").keys() == {"config.json", "model.safetensors", *FILES}


SAVING = """
import sys
from minclip import checkpoints
from minclip.weights import Weights
config, weights = checkpoints.read(sys.argv[1])
models = [weights, checkpoints.read(sys.argv[2])[1]]
files = {"vocab.json": b"{}", "merges.txt": bytes(10_000), "preprocessor_config.json": b"{}"}
while True:
    for model in models:
        print("saving", flush=True)
        checkpoints.save(sys.argv[3], config, model, files)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.long)])
def test_a_process_killed_while_it_saves_loses_nothing(tmp_path: Path, kills: int) -> None:
    """At random moments: the folder holds one of the two checkpoints whole, and no file that is half written."""
    for i in range(2):
        folders.peer("CLIPModel", seed=i).save_pretrained(tmp_path / str(i))
    tensors = [dict(checkpoints.read(tmp_path / str(i))[1]) for i in range(2)]
    folder, rng = tmp_path / "ours", random.Random(0)
    checkpoints.save(folder, *checkpoints.read(tmp_path / "0"), {"vocab.json": b"{}"})
    wholes = {path.read_bytes() for i in range(2) for path in (tmp_path / str(i)).iterdir()}
    for kill in range(kills):
        command = [sys.executable, "-c", SAVING, str(tmp_path / "0"), str(tmp_path / "1"), str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(1 + kill % 3):
                assert process.stdout.readline() == "saving\n"
            time.sleep(rng.uniform(0, 0.05))
            process.kill()
        _, weights = checkpoints.read(folder)
        which = int((weights["logit_scale"] != tensors[0]["logit_scale"]).item())
        folders.assert_equal(weights, tensors[which])
        for path in folder.iterdir():
            if path.name.startswith("."):  # killed between naming a complete file and moving it to its place
                assert hasattr(os, "O_TMPFILE")
                assert path.read_bytes() in wholes | {b"{}", bytes(10_000), (folder / "config.json").read_bytes()}
                path.unlink()
        assert content(folder).keys() >= {"config.json", "model.safetensors", "vocab.json"}
