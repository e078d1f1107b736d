"""The errors that minclip raises on purpose. Each message is one line: the culprit, what was expected, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line knows its errors before it needs NumPy
    import numpy as np


class MinclipError(Exception):
    """Base of all errors below, so that `except minclip.MinclipError` catches every foreseen failure."""


class ConfigError(MinclipError, ValueError):
    """A config.json that is unreadable, contradicts itself, or describes a model minclip does not know."""


class CheckpointError(MinclipError):
    """A checkpoint that cannot be found, read or written, or whose tensors do not fit its config."""


class TokenizerError(MinclipError, ValueError):
    """Tokenizer files that are missing or broken, or a text that they cannot encode as asked."""


class ImageError(MinclipError, ValueError):
    """An image that cannot be read, or an array that is not one."""


class BackendError(MinclipError):
    """A backend, device or dtype that is not there, or a device that ran out of memory.

    `finished` then holds the embeddings of the batches that were done before (rows in the order given), or None.
    """

    finished: np.ndarray | None = None


class LabelSetError(MinclipError, ValueError):
    """A label set that cannot be read or written, or that another model made."""


class SearchError(MinclipError, ValueError):
    """An index that cannot be opened, written or asked: damaged, of another model, in another process's hands."""
