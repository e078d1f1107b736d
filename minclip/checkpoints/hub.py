"""Checkpoints on the hub: the small files, and of the weights only the file that is read."""

from __future__ import annotations

import os
from pathlib import Path

from minclip.checkpoints.folder import SMALL_FILES, choose_weights, config_of
from minclip.errors import CheckpointError
from minclip.files import one_line

UNREACHABLE = (
    "is no folder here, so the hub was asked, which cannot be reached, and the cache here does not hold all of it; "
    "check the path, or try again online"
)


def download(repository: str, revision: str | None) -> Path:
    """The local snapshot of a repository on the hub; what the hub's cache holds is not fetched again.

    Raises CheckpointError, or ConfigError for a model of another kind, whose weights are then not fetched.
    """
    folder = _snapshot(repository, revision, SMALL_FILES)
    config_of(folder)
    listed = _file_names(repository, revision)
    try:
        weights = choose_weights(folder, listed or os.listdir(folder), f"{repository} on the hub")
    except CheckpointError:
        if listed:
            raise
        raise CheckpointError(f"{repository} {UNREACHABLE}") from None
    folder = _snapshot(repository, revision, [*SMALL_FILES, *weights])  # all of it, should somebody push meanwhile
    if not all((folder / name).exists() for name in weights):
        raise CheckpointError(f"{repository} {UNREACHABLE}")
    return folder


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise CheckpointError(
            f"no folder {repository!r}; to look for it on the hub, install huggingface_hub: pip install 'minclip[hub]'"
        ) from None
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, library_name="minclip"))
    except errors.GatedRepoError:
        reason = "is gated; accept its terms on its page, then log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        reason = (
            "is no folder here, so the hub was asked, which has no public model of that name; check the path or the "
            "name, or log in with `hf auth login`"
        )
    except errors.RevisionNotFoundError:
        reason = f"has no revision {revision!r} on the hub"
    except errors.LocalEntryNotFoundError:
        reason = UNREACHABLE
    except Exception as error:  # the client has changed its transport, and so its errors, with every major version
        reason = f"cannot be downloaded from the hub: {type(error).__name__}: {one_line(error)[:200]}"
    raise CheckpointError(f"{repository} {reason}")


def _file_names(repository: str, revision: str | None) -> list[str]:
    """The files of a repository; none where the hub cannot be reached."""
    from huggingface_hub import HfApi

    try:
        info = HfApi(library_name="minclip").model_info(repository, revision=revision)
        return [file.rfilename for file in info.siblings or []]
    except Exception:  # see `_snapshot`; older clients give an incomplete snapshot when they reach nobody
        return []
