"""A checkpoint's files to its config and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from minclip.checkpoints import safetensors
from minclip.checkpoints.folder import SAFETENSORS, config_of, few, promised_tensors
from minclip.checkpoints.names import canonical, is_buffer
from minclip.config import Config
from minclip.errors import CheckpointError
from minclip.families import FAMILIES
from minclip.shapes import expected_shapes
from minclip.weights import OpenFile, Weights, widen

Found = dict[str, tuple[np.ndarray, Path]]  # each tensor by name, and the file it lies in
# Logits lie between -exp(logit_scale) and exp(logit_scale); their differences must be finite float32 numbers.
LARGEST_SCALE = float(np.log(np.finfo(np.float32).max / 2))


def read(source: str | Path, *, mmap: bool = True) -> tuple[Config, Weights]:
    """The config and the weights of a checkpoint, whole or not at all.

    source: a checkpoint folder, or a lone weight file, whose config is the one beside it or, where there is none and
    the tensors have OpenAI's names, one made from their shapes. Where a config leaves it open (a single tower without
    "architectures", a classifier without labels), the tensors decide, and the config returned says so.

    mmap: float32 tensors are views of the memory-mapped files, and only what is used is read. Such a file must not be
    written to while the model is in use: `weights.check_unchanged()` raises where it was, but a file cut short between
    that check and its use kills the process (SIGBUS). False copies everything into memory, where nothing can reach it.
    Raises ConfigError or CheckpointError, one line that names the file and the tensor.
    """
    path = Path(source)
    config = config_of(path)
    files: list[OpenFile] = []
    found: Found = {}
    for file, promised in promised_tensors(path).items():
        files.append(_open(file))
        tensors = read_tensors(file)
        _check_index(file, tensors, promised)
        config = config or _config_from_shapes(tensors, file)
        for name, array in canonical(tensors, config):
            if name in found:
                raise CheckpointError(f"{file}: tensor {name} is there twice, the other time in {found[name][1].name}")
            found[name] = array if mmap else array.copy(), file
    assert config is not None  # there is one weight file at least
    stored = {name: array for name, (array, _) in found.items()}
    config = _settled(config, stored)
    check(path, found, config)
    return config, Weights(stored, files=files if mmap else ())


def _open(file: Path) -> OpenFile:
    try:
        return OpenFile(file)
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from None


def read_tensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of one weight file by the names that it has for them. Raises CheckpointError, naming the file."""
    if file.name.endswith(SAFETENSORS):
        return safetensors.read_tensors(file, skip=is_buffer)
    from minclip.checkpoints import torch_file  # imported where needed: most checkpoints are safetensors

    return torch_file.read_tensors(file, skip=is_buffer)


def _config_from_shapes(tensors: Mapping[str, np.ndarray], file: Path) -> Config:
    """The config of a lone file in OpenAI's names. Raises CheckpointError, naming the file, for any other."""
    from minclip.checkpoints.torch_file import config_of_openai

    names = {name.removeprefix("text."): array for name, array in tensors.items()}  # open_clip may nest the text tower
    return Config.from_dict(config_of_openai(names, str(file)), str(file))


def _check_index(file: Path, tensors: Mapping[str, np.ndarray], promised: list[str]) -> None:
    for name in promised:
        if name not in tensors and not is_buffer(name):
            raise CheckpointError(f"{file} lacks tensor {name}, which the index.json beside it places there")


def _settled(config: Config, tensors: Mapping[str, np.ndarray]) -> Config:
    """The config with what it leaves open decided by the tensors."""
    if config.is_classifier and not config.id2label and tensors.get("classifier.bias", np.empty(())).ndim == 1:
        return replace(config, id2label={i: f"LABEL_{i}" for i in range(len(tensors["classifier.bias"]))})
    if config.is_whole or config.is_classifier or config.has_projection:
        return config
    tower = "Text" if config.text_config is not None else "Vision"
    projected = f"{'text' if tower == 'Text' else 'visual'}_projection.weight" in tensors
    name = f"{FAMILIES[config.model_type].class_prefix}{tower}Model{'WithProjection' if projected else ''}"
    return replace(config, architectures=(name,))


def check(path: Path, found: Found, config: Config) -> None:
    """Raise CheckpointError where the tensors of a checkpoint are not exactly those that its config describes.

    One number is looked at, too: a `logit_scale` whose exponential is no number to multiply cosines by.
    """
    depth = max(getattr(config, f"{tower}_config").num_hidden_layers for tower in config.towers)
    if depth > len(found):  # before the names are written out, of however many layers
        raise CheckpointError(f"{path} holds {len(found)} tensors, too few for the {depth} layers of its config")
    expected = expected_shapes(config)
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in found]
    extra = [f"{name} {array.shape} in {file.name}" for name, (array, file) in found.items() if name not in expected]
    wrong = [
        f"{name} {array.shape} in {file.name} instead of {expected[name]}"
        for name, (array, file) in found.items()
        if array.shape != expected.get(name, array.shape)
    ]
    faults = {"wrong shape": wrong, "missing": missing, "unexpected": extra}
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {fault}: {few(names)}" for fault, names in faults.items() if names)
        files = {file for _, file in found.values()}
        where = files.pop() if len(files) == 1 else path
        raise CheckpointError(f"{where}: the tensors are not those that the config describes; {listed}")
    if "logit_scale" in found:
        array, file = found["logit_scale"]
        scale = float(widen(array, np.float64)) if array.dtype.kind in "fV" else 0.0
        if not -np.inf < scale <= LARGEST_SCALE:
            raise CheckpointError(
                f"{file}: logit_scale is {scale:g}; cosines are multiplied by its exponential, which is a number up to "
                f"{LARGEST_SCALE:.1f} (a trained CLIP has {np.log(100):.1f} at most)"
            )
