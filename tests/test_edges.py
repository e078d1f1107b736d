"""Answers that would be wrong are refused: broken numbers, files that changed, arguments that mean nothing."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniature import captions

import minclip
from minclip import checkpoints
from minclip.commands.cli import main
from minclip.weights import Weights

PICTURE = Path(minclip.__file__).parent / "bundled" / "pictures" / "dog.png"
CALLS: dict[str, Callable[[minclip.Model], Any]] = {
    "zero_shot": lambda model: model.zero_shot(PICTURE, captions()[:2]),
    "encode_image": lambda model: model.encode_image([PICTURE]),
    "encode_text": lambda model: model.encode_text(captions()),
    "call": lambda model: model(**model.processor(text=captions()[:2], images=PICTURE)),
    "features": lambda model: model.get_text_features(**model.processor(text="a")),
}


def one_line(kind: type[Exception], call: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- numbers that are none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("name", CALLS)
def test_weights_that_are_no_numbers_give_no_answer(
    miniature: Path, tmp_path: Path, name: str, backend: str, bad: float
) -> None:
    config, weights = checkpoints.read(miniature)
    tensors = {name: np.array(weights[name]) for name in weights}
    for tower in ("text", "visual"):
        tensors[f"{tower}_projection.weight"][0, 0] = bad
    folder = tmp_path / "broken"
    shutil.copytree(miniature, folder)
    checkpoints.save(folder, config, Weights(tensors))
    model = minclip.load(folder, backend=backend)
    assert f"minclip info --check {folder}" in one_line(minclip.CheckpointError, lambda: CALLS[name](model))
    assert main(["zero-shot", str(PICTURE), "--labels", "a", "b", "--model", str(folder)]) == 2


# --- files that change ---------------------------------------------------------------------------------------------


def other_weights(folder: Path) -> bytes:
    """A weight file of the same size that answers otherwise."""
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-64:] = bytes(64)
    return bytes(data)


@pytest.mark.parametrize("name", CALLS)
def test_a_mapped_file_that_was_written_into_or_cut_short_gives_no_answer(
    miniature: Path, tmp_path: Path, name: str
) -> None:
    for change in ("written into", "cut short"):
        folder = tmp_path / change
        shutil.copytree(miniature, folder)
        model, copied = minclip.load(folder), minclip.load(folder, mmap=False)
        before = copied.encode_text(captions())
        with (folder / "model.safetensors").open("r+b") as file:
            if change == "cut short":
                file.truncate(1000)
            else:
                file.write(other_weights(miniature))
        assert "was changed" in one_line(minclip.CheckpointError, lambda model=model: CALLS[name](model))
        assert np.array_equal(copied.encode_text(captions()), before)


def test_the_one_liner_sees_a_folder_replaced_by_one_of_the_same_sizes_and_times(
    miniature: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "model", tmp_path / "other"
    shutil.copytree(miniature, folder)
    shutil.copytree(miniature, other)
    (other / "model.safetensors").write_bytes(other_weights(miniature))
    labels = captions()[:3]
    first = minclip.zero_shot(PICTURE, labels, model=folder)
    for file in folder.iterdir():  # the times of modification are kept
        stat = file.stat()
        os.utime(other / file.name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.rmtree(folder)
    other.rename(folder)
    again = minclip.zero_shot(PICTURE, labels, model=folder)
    assert again == minclip.load(folder).zero_shot(PICTURE, labels)
    assert again != first


# --- arguments -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "named"),
    [
        (lambda m: minclip.load(5), minclip.CheckpointError, "int"),
        (lambda m: minclip.zero_shot(PICTURE, ["a"], model=["x"]), minclip.CheckpointError, "list"),  # type: ignore[call-overload]
        (lambda m: m.zero_shot(PICTURE, None), ValueError, "labels"),
        (lambda m: m.zero_shot(PICTURE, [""]), ValueError, "labels"),
        (lambda m: m.zero_shot(PICTURE, ["a", "b", "a"]), ValueError, "'a' twice"),
        (lambda m: m.zero_shot(PICTURE, 7), ValueError, "labels"),
        (lambda m: m.encode_text(None), ValueError, "texts"),
        (lambda m: m.encode_text(["a", None]), ValueError, "NoneType"),
        (lambda m: m.encode_text(["a"], batch_size="3"), ValueError, "batch_size"),
        (lambda m: m.encode_image([PICTURE], batch_size=0), ValueError, "batch_size"),
        (lambda m: m(**m.processor(text="a"), pixel_values="x"), ValueError, "pixel_values"),
        (lambda m: m.get_text_features(input_ids="x"), ValueError, "input_ids"),
        (lambda m: m.get_text_features(input_ids=[[2**70]]), ValueError, "input_ids"),
        (lambda m: m.processor(text="a", return_tensors="tf"), ValueError, "return_tensors"),
        (lambda m: m.processor(), ValueError, "nothing"),
    ],
)
def test_arguments_that_mean_nothing_are_named(
    miniature: Path, call: Callable[[minclip.Model], Any], kind: type[Exception], named: str
) -> None:
    model = minclip.load(miniature)
    assert named in one_line(kind, lambda: call(model))


# --- what shows itself ---------------------------------------------------------------------------------------------


def test_dir_shows_what_a_user_uses_and_all_of_it_is_there() -> None:
    assert {"load", "zero_shot", "explain", "Index", "Model", "gradients"} <= set(dir(minclip))
    assert "annotations" not in dir(minclip)
    for name in dir(minclip):
        assert getattr(minclip, name) is not None


def test_the_call_names_what_it_takes() -> None:
    named = inspect.signature(minclip.Model.__call__).parameters
    assert {"input_ids", "attention_mask", "pixel_values", "labels", "return_loss"} <= set(named)
    assert not any(parameter.kind is parameter.VAR_KEYWORD for parameter in named.values())


def test_reprs_are_short_and_show_shapes(miniature: Path) -> None:
    model = minclip.load(miniature)
    output = model(**model.processor(text=["a", "b"], images=PICTURE), output_hidden_states=True)
    for shown in (model, model.processor, model.processor.tokenizer, model.processor.image_processor, model.weights):
        assert len(repr(shown)) < 400
        assert " at 0x" not in repr(shown)
    assert "logits_per_image: (1, 2) float32" in repr(output)
    assert len(repr(output).splitlines()) < 25
