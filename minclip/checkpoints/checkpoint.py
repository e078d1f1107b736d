"""Where a checkpoint lies (a folder, in the box, on the hub), what is in its files, and how one is written.

A checkpoint is a folder: config.json, the weights as safetensors, and the files of its tokenizer and image processor.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minclip.checkpoints.names import canonical, from_open_clip, is_buffer, saved_name
from minclip.checkpoints.safetensors_file import STORED_AS, read_tensors, write_tensors
from minclip.config import FAMILIES, Config, read_config
from minclip.errors import CheckpointError
from minclip.files import replacing
from minclip.notice import ANOTHER
from minclip.shapes import expected_shapes
from minclip.weights import Weights

BUNDLED = Path(__file__).parents[1] / "bundled"
DEFAULT = "mini-metaclip-2"  # of the bundled models, the one that is used where none is named
LANGUAGES = {"mini-clip": "English", "mini-altclip": "25 languages", "mini-metaclip-2": "25 languages"}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
OPEN_CLIP_WEIGHTS, OPEN_CLIP_CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CONVERT = (
    "these are pickles, which run code when they are opened; where you trust them, "
    "load them with Transformers and call save_pretrained(folder), which writes safetensors"
)


# --- where it lies -------------------------------------------------------------------------------------------------


def locate(source: str | Path | None = None) -> Path:
    """The folder of a checkpoint.

    source: a folder; the name of a bundled model, None for the default one; or a hub id, "org/name" or
    "org/name@revision", which alone touches the network, and that only for what is not in the hub's cache.
    Raises CheckpointError, saying what was looked for.
    """
    if source is None:
        if DEFAULT not in bundled_names():
            raise CheckpointError(
                f"{BUNDLED} lacks {DEFAULT}, the model that is used where none is named; install minclip again, "
                f"or name a checkpoint folder or a hub id such as {ANOTHER}"
            )
        return BUNDLED / DEFAULT
    path = os.path.expanduser(source)
    if os.path.isdir(path):
        return Path(path)
    if os.path.exists(path):
        raise CheckpointError(f"{source} is a file; name the folder that holds it: {os.path.dirname(path) or '.'}")
    if source in bundled_names():
        return BUNDLED / source
    if isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@.+)?", source):
        repository, _, revision = source.partition("@")
        return _download(repository, revision or None)
    bundled = ", ".join(bundled_names()) or "there is none"
    raise CheckpointError(
        f"no folder {str(source)!r} and no bundled model of that name ({bundled}); "
        f"give a checkpoint folder or a hub id such as {ANOTHER}"
    )


def bundled_names() -> list[str]:
    """The models in the box."""
    return sorted(config.parent.name for config in BUNDLED.glob("*/config.json"))


# --- the hub -------------------------------------------------------------------------------------------------------

SMALL_FILES = [
    "config.json", OPEN_CLIP_CONFIG, "preprocessor_config.json", "processor_config.json", "vocab.json", "merges.txt",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "*.model",
]  # fmt: skip
UNREACHABLE = "is no folder, the hub cannot be reached, and the cache here does not hold all of it; try again online"
TRANSFORMERS_FILES = [WEIGHTS, INDEX, "model-*-of-*.safetensors"]


def _download(repository: str, revision: str | None) -> Path:
    """The local snapshot of a hub repository: its small files, and its weights once the config is one we know."""
    folder = _snapshot(repository, revision, SMALL_FILES)
    _read_config(folder)
    kinds = [TRANSFORMERS_FILES, [OPEN_CLIP_WEIGHTS]]
    for weights in reversed(kinds) if _is_open_clip(folder) else kinds:
        folder = _snapshot(repository, revision, [*SMALL_FILES, *weights])  # both, should somebody push meanwhile
        if any(folder.glob("*.safetensors")):
            return folder
    ways = f"{CONVERT}, or name a revision that has some, as the hub's own converter proposes: {repository}@refs/pr/N"
    raise _no_weights(f"{repository} on the hub", _files_on_hub(repository, revision), ways)


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise CheckpointError(
            f"no folder {repository!r}; to look for it on the hub, huggingface_hub is needed: pip install minclip[hub]"
        ) from None
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, library_name="minclip"))
    except errors.GatedRepoError:
        reason = "is gated; accept its terms on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = "is no folder here and no public model on the hub; check the name, or log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        reason = f"has no revision {revision!r} on the hub"
    except errors.LocalEntryNotFoundError:
        reason = UNREACHABLE
    except Exception as error:  # the client has changed its transport, and so its errors, with every major version
        reason = f"cannot be downloaded: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    raise CheckpointError(f"{repository} {reason}")


def _files_on_hub(repository: str, revision: str | None) -> list[str]:
    from huggingface_hub import list_repo_files

    try:
        return list(list_repo_files(repository, revision=revision))
    except Exception:  # see `_snapshot`; older clients hand out an incomplete cache when they reach nobody
        raise CheckpointError(f"{repository} {UNREACHABLE}") from None


# --- what is in its files ------------------------------------------------------------------------------------------


def read(folder: str | Path) -> tuple[Config, Weights]:
    """The config and the weights of a checkpoint folder, whole or not at all.

    Where the config leaves it open (a single tower without "architectures", a classifier without labels), the tensors
    decide, and the config returned says so. Float32 tensors are views of the memory-mapped file. Raises ConfigError
    or CheckpointError, one line that names the file and the tensor.
    """
    folder = Path(folder)
    config = _read_config(folder)
    found = _gather(folder, config)
    config = _settle(config, {name: array for name, (array, _) in found.items()})
    return config, _checked(folder, found, config)


def read_weights(folder: str | Path, config: Config) -> Weights:
    """The weights of a checkpoint folder under minclip's names: exactly those that `config` describes.

    Nothing is copied: each is a view of a memory-mapped file. Raises CheckpointError where a file is broken, or a
    tensor is missing, of the wrong shape, or none that the config knows.
    """
    folder = Path(folder)
    return _checked(folder, _gather(folder, config), config)


def weight_files(folder: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint folder: model.safetensors, or the shards that its index names, or the one
    that there is under another name. Raises CheckpointError where there is none, or no saying which.
    """
    folder = Path(folder)
    if _is_open_clip(folder) and (folder / OPEN_CLIP_WEIGHTS).exists():  # a model.safetensors beside it is timm's
        return [folder / OPEN_CLIP_WEIGHTS]
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        return list(_read_index(folder / INDEX))
    others = sorted(folder.glob("*.safetensors"))
    if len(others) > 1:
        names = ", ".join(path.name for path in others[:3])
        raise CheckpointError(f"{folder} has {len(others)} weight files ({names}, ...) and no {INDEX} to join them")
    if not others:
        raise _no_weights(str(folder), sorted(path.name for path in folder.glob("*")))
    return others


def _no_weights(where: str, files: list[str], ways_out: str = CONVERT) -> CheckpointError:
    """Why a folder or repository with these files has no weights for us."""
    pickles = [name for name in files if name.endswith(PICKLES)]
    if pickles:
        return CheckpointError(f"{where} has no safetensors weights, only {_few(pickles)}: {ways_out}")
    return CheckpointError(f"{where} has no weights; expected {WEIGHTS}, or {INDEX} with its shards")


def _read_config(folder: Path) -> Config:
    if _is_open_clip(folder):
        return from_open_clip(_read_json(folder / OPEN_CLIP_CONFIG), str(folder / OPEN_CLIP_CONFIG))
    return read_config(folder)


def _is_open_clip(folder: Path) -> bool:
    """Whether only open_clip's config says what the model is; a config.json without a model type is timm's."""
    if not (folder / OPEN_CLIP_CONFIG).exists():
        return False
    config = folder / "config.json"
    if not config.exists():
        return True
    content = _read_json(config)
    return isinstance(content, Mapping) and "model_type" not in content


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None


def _read_index(path: Path) -> dict[Path, list[str]]:
    """The shards that an index names, each with its tensors."""
    index = _read_json(path)
    places = index.get("weight_map") if isinstance(index, Mapping) else None
    beside = isinstance(places, Mapping) and all(isinstance(s, str) and s == Path(s).name for s in places.values())
    if not places or not beside:
        raise CheckpointError(f"{path} must map tensors to files beside it in its weight_map")
    shards: dict[Path, list[str]] = {}
    for name, shard in places.items():
        shards.setdefault(path.parent / shard, []).append(name)
    for shard_path, names in shards.items():
        if not shard_path.exists():
            raise CheckpointError(
                f"{path} places {names[0]} in {shard_path.name}, which is not there; download it again"
            )
    return dict(sorted(shards.items()))


Found = dict[str, tuple[np.ndarray, Path]]


def _gather(folder: Path, config: Config) -> Found:
    """Every tensor of the folder's files under minclip's name, and the file it lies in."""
    files = weight_files(folder)
    index = folder / INDEX
    promised = _read_index(index) if index.exists() and files != [folder / WEIGHTS] else {}
    found: Found = {}
    for path in files:
        tensors = read_tensors(path, skip=is_buffer)
        for name in promised.get(path, ()):
            if name not in tensors and not is_buffer(name):
                raise CheckpointError(f"{path} lacks tensor {name}, which {index.name} places in it")
        for name, array in canonical(tensors, config):
            if name in found:
                raise CheckpointError(f"{path}: tensor {name} is there twice, the other time in {found[name][1].name}")
            found[name] = array, path
    return found


def _settle(config: Config, tensors: Mapping[str, np.ndarray]) -> Config:
    """The config with what it leaves open decided by the tensors."""
    if config.is_classifier and not config.id2label and tensors.get("classifier.bias", np.empty(())).ndim == 1:
        return replace(config, id2label={i: f"LABEL_{i}" for i in range(len(tensors["classifier.bias"]))})
    if config.is_whole or config.is_classifier or config.has_projection:
        return config
    tower = "Text" if config.text_config is not None else "Vision"
    projected = f"{'text' if tower == 'Text' else 'visual'}_projection.weight" in tensors
    name = f"{FAMILIES[config.model_type].class_prefix}{tower}Model{'WithProjection' if projected else ''}"
    return replace(config, architectures=(name,))


def _checked(folder: Path, found: Found, config: Config) -> Weights:
    """The tensors as Weights, if they are those that the config describes."""
    depth = max(getattr(config, f"{tower}_config").num_hidden_layers for tower in config.towers)
    if depth > len(found):  # before the names are written out, of however many layers
        raise CheckpointError(f"{folder} holds {len(found)} tensors, too few for the {depth} layers of its config")
    expected = expected_shapes(config)
    missing = [f"{name} {shape}" for name, shape in expected.items() if name not in found]
    extra = [f"{name} {array.shape} in {path.name}" for name, (array, path) in found.items() if name not in expected]
    wrong = [
        f"{name} {array.shape} in {path.name} instead of {expected[name]}"
        for name, (array, path) in found.items()
        if array.shape != expected.get(name, array.shape)
    ]
    faults = {"wrong shape": wrong, "missing": missing, "unexpected": extra}
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {fault}: {_few(names)}" for fault, names in faults.items() if names)
        files = {path for _, path in found.values()}
        where = files.pop() if len(files) == 1 else folder
        raise CheckpointError(f"{where}: the tensors are not those that the config describes; {listed}")
    return Weights({name: array for name, (array, _) in found.items()})


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# --- writing -------------------------------------------------------------------------------------------------------


def save(folder: str | Path, config: Config, weights: Weights, dtype: str | None = None) -> None:
    """Write config.json and model.safetensors, a checkpoint that `read` and Transformers open.

    dtype: None keeps every tensor bit for bit in the type it is stored in; "float32", "float16" or "bfloat16" rounds
    to the nearest. Both files take their places only when both are complete, and files that the weights are mapped
    from may be overwritten. Raises CheckpointError where weights and config do not fit, or writing fails.
    """
    folder = Path(folder)
    if dtype is not None and dtype not in STORED_AS:
        raise CheckpointError(f"dtype {dtype!r} is not one of {', '.join(STORED_AS)}")
    found = {name: (weights.stored(name), folder / WEIGHTS) for name in weights}
    _checked(folder, found, config)
    tensors = {saved_name(name, config): array for name, (array, _) in found.items()}
    content = config.to_dict()
    if dtype is not None:  # Transformers loads a model in the type that its config names
        content = {**_without_dtype(content), "dtype": dtype}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "config.json") as config_file, replacing(folder / WEIGHTS) as weights_file:
            config_file.write((json.dumps(content, indent=2, sort_keys=True) + "\n").encode())
            write_tensors(weights_file, tensors, dtype)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error}") from None


def _without_dtype(content: dict[str, Any]) -> dict[str, Any]:
    """A config without the types it names, its towers included."""
    return {
        name: _without_dtype(value) if isinstance(value, dict) else value
        for name, value in content.items()
        if name not in ("dtype", "torch_dtype")
    }
