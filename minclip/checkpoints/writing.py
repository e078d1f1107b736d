"""A config, weights and the files of a processor to a checkpoint folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from minclip.checkpoints.folder import SAFETENSORS, SMALL_FILES, TORCH, WEIGHTS, few
from minclip.checkpoints.names import saved_name
from minclip.checkpoints.reading import check
from minclip.checkpoints.safetensors import STORED_AS, write_tensors
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.files import json_bytes, replacing_together
from minclip.weights import Weights


def save(
    folder: str | Path,
    config: Config,
    weights: Weights,
    files: Mapping[str, bytes] | None = None,
    dtype: str | None = None,
) -> None:
    """Write config.json, model.safetensors and `files`, a checkpoint that `read` and Transformers open.

    files: the content of the tokenizer's and the image processor's files by name; None leaves those that are there.
    dtype: None keeps every tensor bit for bit in the type it is stored in; "float32", "float16" or "bfloat16" rounds
    to the nearest. All files take their places together when all are complete; files that the weights are mapped from
    may be overwritten, and no other file is touched. Raises CheckpointError where weights and config do not fit,
    writing fails, or the folder holds files of another checkpoint that would be taken for this one's.
    """
    folder = Path(folder)
    if dtype is not None and dtype not in STORED_AS:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(STORED_AS)}")
    found = {name: (weights.stored(name), folder / WEIGHTS) for name in weights}
    check(folder, found, config)
    tensors = {saved_name(name, config): array for name, (array, _) in found.items()}
    content = config.to_dict()
    if dtype is not None:  # Transformers loads a model in the type that its config names
        content = {**_without_dtype(content), "dtype": dtype}
    small = {"config.json": json_bytes(content), **(files or {})}
    read_from = {os.path.realpath(file.path.parent) for file in weights.files}
    if files is not None and os.path.realpath(folder) not in read_from:
        _check_leftovers(folder, {WEIGHTS, *small})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing_together() as begin:
            write_tensors(begin(folder / WEIGHTS), tensors, dtype)
            for name, data in small.items():
                begin(folder / name).write(data)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error}") from None


def _check_leftovers(folder: Path, ours: set[str]) -> None:
    """Raise CheckpointError where files of a checkpoint stay in the folder that `ours` do not replace."""
    parts = [*SMALL_FILES, *(f"*{ending}" for ending in (*SAFETENSORS, *TORCH))]
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    leftovers = sorted(name for name in there - ours if any(fnmatch(name, part) for part in parts))
    if leftovers:
        raise CheckpointError(
            f"{folder} holds files of another checkpoint, which would be taken for this one's: {few(leftovers)}; "
            "remove them or save to another folder"
        )


def _without_dtype(content: dict[str, Any]) -> dict[str, Any]:
    """A config without the types it names, its towers included."""
    return {
        name: _without_dtype(value) if isinstance(value, dict) else value
        for name, value in content.items()
        if name not in ("dtype", "torch_dtype")
    }
