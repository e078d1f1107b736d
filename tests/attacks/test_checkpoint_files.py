"""Each file of a checkpoint, damaged: the folder answers, in numbers, or is refused in one line that is ours."""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import folders
import numpy as np
import pytest
import torch
import training
import transformers
from attack import attack, counts, needs_timer
from mutators import BYTES, JSON, PROTOBUF, SAFETENSORS, TEXT, ZIP, all_cuts, in_entries, mutated

import minclip
from minclip import backend, checkpoints
from minclip.config import read_config
from minclip.initialization import initial_weights

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), dtype=np.uint8)
TEXTS = ["red disc", "", "e\u0301\u0323 猫 <s></s> vert 👩\u200d👩 " * 3]

TARGETS = {
    "config.json": ("clip", JSON),
    "altclip's config.json": ("altclip", JSON),
    "preprocessor_config.json": ("clip", JSON),
    "open_clip_config.json": ("open_clip", JSON),
    "vocab.json": ("clip", JSON),
    "merges.txt": ("clip", TEXT),
    "tokenizer_config.json": ("altclip", JSON),
    "sentencepiece.bpe.model": ("altclip", PROTOBUF),
    "unigram's tokenizer.json": ("unigram", JSON),
    "BPE's tokenizer.json": ("bpe", JSON),
    "model.safetensors": ("clip", SAFETENSORS),
    "model.safetensors.index.json": ("shards", JSON),
    "pytorch_model.bin": ("torch", ZIP),
    "old pytorch_model.bin": ("old torch", BYTES),
}
"""Each file, the folder below that it is in, and how it is damaged."""


def make(kind: str, folder: Path) -> Path:
    """A small checkpoint with random weights."""
    if kind == "open_clip":
        folder.mkdir()
        folders.save_open_clip(folder, folders.OPEN_CLIP_MODEL, folders.peer("CLIPModel"))
        return folder
    training.write_start(folder, "altclip" if kind in ("altclip", "unigram") else "clip")
    config = read_config(folder)
    weights = initial_weights(config)
    if kind in ("unigram", "bpe"):
        peer = {"unigram": transformers.XLMRobertaTokenizer, "bpe": transformers.CLIPTokenizer}[kind]
        serialized = peer.from_pretrained(folder).backend_tokenizer.to_str()
        for name in ("sentencepiece.bpe.model", "vocab.json", "merges.txt"):
            (folder / name).unlink(missing_ok=True)
        (folder / "tokenizer.json").write_text(serialized)
    if kind.endswith("torch"):
        state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "torch")
    else:
        checkpoints.save(folder, config, weights)
    if kind == "shards":
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        index = {"weight_map": dict.fromkeys(weights, "model-1.safetensors")}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def answer(folder: Path) -> dict[str, np.ndarray]:
    """What the folder's model makes of two pictures and some texts, all of it finite and of the right shape."""
    model = minclip.load(folder)
    assert model.config.text_config is not None
    found = {"images": model.encode_image(list(PICTURES))}
    assert found["images"].shape == (2, model.config.projection_dim)
    if (folder / "open_clip_config.json").exists():
        ids = np.array([[0, 3, model.config.text_config.vocab_size - 1]])
        found["texts"] = model.get_text_features(input_ids=ids)
    else:
        found["texts"] = model.encode_text(TEXTS)
        for text in TEXTS:
            model.processor.tokenizer.decode(model.processor.tokenizer.encode(text))
            model.processor.tokenizer.encode_with_offsets(text)
        assert found["texts"].shape == (len(TEXTS), model.config.projection_dim)
    for array in found.values():
        assert np.isfinite(array).all()
    return found


def in_place(path: Path) -> Callable[[bytes], dict[str, np.ndarray]]:
    """The answer of a file's folder with another content in its place, whoever has the old one mapped."""

    def use(content: bytes) -> dict[str, np.ndarray]:
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        return answer(path.parent)

    return use


@pytest.fixture(scope="module", autouse=True)
def quiet_and_quick() -> Iterator[None]:
    """The installed backends are looked up once, which takes longer than the rest of loading a model this small."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(backend, "installed", cache(backend.installed))
        warnings.simplefilter("ignore")  # NumPy's of numbers that are refused right afterwards
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Where the file of a target lies, whole; each folder is made once."""
    base = tmp_path_factory.mktemp("attacked")

    def find(target: str) -> Path:
        kind = TARGETS[target][0]
        folder = base / kind if (base / kind).exists() else make(kind, base / kind)
        return folder / target.split()[-1]

    return find


@needs_timer
@counts(25, 500)
@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_answers_or_is_refused(target: str, count: int, made: Callable[[str], Path]) -> None:
    path, rng = made(target), random.Random(f"{target} {count}")
    whole, others = path.read_bytes(), {p.name for p in path.parent.iterdir()}
    use = in_place(path)
    use(whole)  # what is imported and remembered once is not counted
    try:
        found = attack(use, (mutated(whole, TARGETS[target][1], rng) for _ in range(count)))
    finally:
        use(whole)
    print(f"{target}: {found}")
    assert found.total() == count
    assert found["refused"] > count // 5
    assert {p.name for p in path.parent.iterdir()} == others


@needs_timer
@counts(15, 100)
@pytest.mark.parametrize("target", TARGETS)
def test_a_file_cut_anywhere_answers_as_the_whole_one_or_is_refused(
    target: str, count: int, made: Callable[[str], Path]
) -> None:
    path = made(target)
    whole, use = path.read_bytes(), in_place(path)
    expected = use(whole)

    def as_the_whole(content: bytes) -> None:
        for name, array in use(content).items():
            np.testing.assert_array_equal(array, expected[name])

    try:
        found = attack(as_the_whole, all_cuts(whole, count, random.Random(target)))
    finally:
        use(whole)
    assert found["refused"] > 0


@pytest.mark.parametrize("target", ["pytorch_model.bin", "old pytorch_model.bin"])
def test_a_storage_whose_type_is_no_name_is_refused(target: str, made: Callable[[str], Path]) -> None:
    path = made(target)
    whole, use = path.read_bytes(), in_place(path)

    def number(data: bytes, _: random.Random) -> bytes:
        return data.replace(b"ctorch\nFloatStorage\n", b"K\x01")

    changed = number(whole, random.Random(0))
    if target == "pytorch_model.bin":
        changed = in_entries(lambda items, _: items.__setitem__(0, (items[0][0], number(items[0][1], _))))(
            whole, random.Random(0)
        )
    try:
        assert attack(use, [changed]) == {"refused": 1}
        with pytest.raises(minclip.CheckpointError, match="describes a storage by something else"):
            use(changed)
    finally:
        use(whole)
