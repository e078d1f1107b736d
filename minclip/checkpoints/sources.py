"""What the name of a model stands for: a bundled model, a checkpoint folder, a lone weight file, a model on the hub."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

from minclip.checkpoints.folder import SAFETENSORS, SMALL_FILES, TORCH
from minclip.checkpoints.hub import download
from minclip.errors import CheckpointError
from minclip.notice import ANOTHER

BUNDLED = Path(__file__).parents[1] / "bundled"
DEFAULT = "mini-metaclip-2"  # of the bundled models, the one that is used where none is named
LANGUAGES = {"mini-clip": "English", "mini-altclip": "25 languages", "mini-metaclip-2": "25 languages"}
# the names that OpenAI gave its models, and where they lie on the hub
OPENAI = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
}
HUB_ID = re.compile(r"(?:hf-hub:)?([\w-][\w.-]*/[\w.-]+)(?:@(.+))?")
HUB_PAGE = re.compile(r"https?://(?:huggingface|hf)\.co/([\w-][\w.-]*/[\w.-]+)(?:/tree/([^?#]+))?")


def locate(source: str | Path | None = None) -> Path:
    """The folder of a checkpoint, or the lone weight file that `source` names.

    source: a folder; a weight file (.safetensors, .bin, .pt, .pth); the name of a bundled model, None for the default
    one; or a model on the hub as "org/name", "org/name@revision", "hf-hub:org/name", the address of its page, or one of
    OpenAI's names such as "ViT-B/32". The hub alone touches the network, and that only for what is not in its cache;
    a folder or file of the same name comes first. Raises CheckpointError, saying what was looked for.
    """
    if source is None:
        if DEFAULT not in bundled_names():
            raise CheckpointError(
                f"{BUNDLED} lacks {DEFAULT}, the model that is used where none is named; install minclip again, "
                f"or name a checkpoint folder or a hub id such as {ANOTHER}"
            )
        return BUNDLED / DEFAULT
    if not isinstance(source, str | os.PathLike):
        raise CheckpointError(f"a model is named by a str or a path, not by {type(source).__name__}: {source!r:.80}")
    if path := _local(source):
        return path if path.is_dir() else _weight_file(path)
    if isinstance(source, str) and (found := on_hub(source.rstrip("/"))):
        return download(*found)
    bundled = ", ".join(bundled_names()) or "there is none"
    raise CheckpointError(
        f"no folder or file {str(source)!r} and no bundled model of that name ({bundled}); "
        f"give a checkpoint folder or a hub id such as {ANOTHER}"
    )


def bundled_names() -> list[str]:
    """The models that come with minclip."""
    return sorted(config.parent.name for config in BUNDLED.glob("*/config.json"))


def _local(source: str | os.PathLike[str]) -> Path | None:
    """The folder or file on this machine that a source names, if there is one."""
    path = os.path.expanduser(os.fsdecode(source))
    if os.path.exists(path):
        return Path(path)
    name = str(source).rstrip("/")
    return BUNDLED / name if name in bundled_names() else None


def _weight_file(path: Path) -> Path:
    """The path of a file, if weights can be in it. Raises CheckpointError for any other file, a device or a pipe."""
    if os.path.isfile(path) and path.name.endswith(SAFETENSORS + TORCH):
        return path
    raise CheckpointError(
        f"{path} is no weight file ({', '.join(SAFETENSORS + TORCH)}); name one, or the folder of a checkpoint: "
        f"{path.parent}"
    )


def on_hub(name: str) -> tuple[str, str | None] | None:
    """The repository and the revision that a name stands for on the hub, if it can stand for one."""
    if page := HUB_PAGE.fullmatch(name):
        return page[1], unquote(page[2]) if page[2] else None
    found = HUB_ID.fullmatch(OPENAI.get(name, name))
    return (found[1], found[2]) if found else None


def state_of(source: str | Path | None) -> object:
    """Which files a source names now and how they are, to compare with later; None for what is no folder or file.

    Of each of a checkpoint's files: its inode, size, and times of modification and of change. The time of change cannot
    be set back, so a file replaced by another of the same size and times is seen, too.
    """
    path = BUNDLED / DEFAULT if source is None else _local(source) if isinstance(source, str | os.PathLike) else None
    if path is None or not path.exists():
        return None
    folder = path if path.is_dir() else path.parent
    parts = [*SMALL_FILES, *(f"*{ending}" for ending in SAFETENSORS + TORCH)] if path.is_dir() else SMALL_FILES
    files = [path] if not path.is_dir() else []
    files += sorted(file for file in folder.iterdir() if any(fnmatch(file.name, part) for part in parts))
    return os.path.realpath(path), tuple(map(_file_state, files))


def _file_state(path: Path) -> tuple[str, ...] | tuple[str, int, int, int, int]:
    try:
        s = path.stat()
    except OSError:  # removed since the folder was listed, or a link to nowhere
        return (path.name,)
    return path.name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns
