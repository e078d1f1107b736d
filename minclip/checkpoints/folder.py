"""Which files of a checkpoint folder, or of a repository on the hub, are the checkpoint: its config and its weights."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minclip.checkpoints import open_clip
from minclip.config import Config, read_config
from minclip.errors import CheckpointError, ConfigError
from minclip.files import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TORCH_WEIGHTS, TORCH_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
OPEN_CLIP_WEIGHTS = [
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
]
TOKENIZER_FILES = [
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "*.model",
]  # fmt: skip
IMAGE_FILES = ["preprocessor_config.json", "processor_config.json"]
SMALL_FILES = ["config.json", open_clip.CONFIG, INDEX, TORCH_INDEX, *IMAGE_FILES, *TOKENIZER_FILES]

SAFETENSORS, TORCH = (".safetensors",), (".bin", ".pt", ".pth", ".ckpt")
# what trainers leave beside a model
NO_WEIGHTS = {
    "training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "scaler.pt",
    "rng_state.pth", "state.pt",
}  # fmt: skip


def config_of(path: Path) -> Config | None:
    """The config of a checkpoint folder, or the one beside a lone weight file; None where such a file has none.

    Raises ConfigError, one line that names the file.
    """
    folder = path if path.is_dir() else path.parent
    if open_clip.alone_describes(folder):
        file = folder / open_clip.CONFIG
        return open_clip.config_from_dict(read_json(file, ConfigError), str(file))
    if path != folder and not (folder / "config.json").exists():
        return None
    return read_config(folder)


def has_weights(folder: Path) -> bool:
    """Whether there is anything in a folder that looks like weights, readable or not."""
    endings = (*SAFETENSORS, *TORCH, INDEX, TORCH_INDEX)
    return any(name.endswith(endings) for name in set(os.listdir(folder)) - NO_WEIGHTS)


def weight_files(path: str | Path) -> list[Path]:
    """The weight files of a checkpoint: one, or the shards that an index names. Raises CheckpointError for none."""
    return list(promised_tensors(Path(path)))


def promised_tensors(path: Path) -> dict[Path, list[str]]:
    """The weight files of a checkpoint folder, each with the tensors that an index says are in it.

    path: a folder, or a lone weight file, which stands for itself.
    """
    if not path.is_dir():
        return {path: []}
    chosen = choose_weights(path, os.listdir(path), str(path))
    return {path / name: tensors for name, tensors in chosen.items()}


def choose_weights(folder: Path, names: Iterable[str], where: str) -> dict[str, list[str]]:
    """Which of the files `names` hold the weights, each with the tensors that an index says are in it.

    Safetensors come before torch files, the names that Transformers and open_clip give before any other. folder: where
    the small files lie, an index among them. where: what an error calls the place. Raises CheckpointError where no
    file holds weights, several of other names could, or a shard is missing.
    """
    present = {name for name in names if "/" not in name}
    known = [WEIGHTS, INDEX, *OPEN_CLIP_WEIGHTS[:2], TORCH_WEIGHTS, TORCH_INDEX, OPEN_CLIP_WEIGHTS[2]]
    if open_clip.alone_describes(folder):  # a model.safetensors beside it is timm's
        known = OPEN_CLIP_WEIGHTS + known
    for name in known:
        if name in present:
            return _shards(folder / name, present) if name.endswith(".index.json") else {name: []}
    for endings in (SAFETENSORS, TORCH):
        others = sorted(name for name in present - NO_WEIGHTS if name.endswith(endings))
        if len(others) > 1:
            raise CheckpointError(
                f"{where} has {len(others)} weight files ({few(others)}) and no {INDEX} to join them; "
                "where one of them is the model, name that file"
            )
        if others:
            return {others[0]: []}
    raise CheckpointError(f"{where} has no weights; expected {WEIGHTS}, {TORCH_WEIGHTS}, or shards with their index")


def _shards(index: Path, present: set[str]) -> dict[str, list[str]]:
    """The files that an index names, each with its tensors."""
    places = read_json(index, CheckpointError).get("weight_map")
    beside = isinstance(places, dict) and all(isinstance(s, str) and s == Path(s).name for s in places.values())
    if not places or not beside:
        raise CheckpointError(f"{index} must map tensors to files beside it in its weight_map")
    shards: dict[str, list[str]] = {}
    for tensor, shard in places.items():
        shards.setdefault(shard, []).append(tensor)
    for shard, tensors in shards.items():
        if shard not in present:
            raise CheckpointError(f"{index} places {tensors[0]} in {shard}, which is not there; download it again")
    return dict(sorted(shards.items()))


def few(names: list[str]) -> str:
    """The first three of a list, for an error's one line."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
