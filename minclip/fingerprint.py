"""Which model made these embeddings: a short name for what it computes, whatever folder it lies in."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a model's label sets hold its fingerprint
    from minclip.model import Model

BLOCKS, BLOCK = 16, 256  # of each tensor so many blocks of so many bytes are read


def fingerprint(model: Model) -> str:
    """64 hexadecimal digits (SHA-256) of a model's config, image processor and weights.

    Of the weights: every name, type and shape, and of every tensor 16 blocks of 256 bytes, evenly spread, the first and
    the last included. Training moves every tensor, so that tells models apart, and reads 25 MB of a large one instead
    of 7 GB; a change made by hand between the blocks goes unnoticed. Backend, device and computing dtype do not enter;
    weights stored in another type do. The tokenizer does not: embeddings of pictures do not depend on it.
    """
    digest = hashlib.sha256()
    described = {"config": model.config.to_dict(), "image_processor": model.processor.image_processor.to_dict()}
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for name in sorted(model.weights):
        tensor = model.weights.stored(name)
        digest.update(f"{name} {tensor.dtype.descr} {tensor.shape}".encode())
        for block in _blocks(tensor):
            digest.update(block)
    return digest.hexdigest()


def origin(model: Model) -> str:
    """What loads the model again from anywhere: of a folder the absolute path, else the name it was loaded by."""
    return os.path.abspath(model.source) if os.path.isdir(model.source) else model.source


def _blocks(tensor: np.ndarray) -> Iterator[bytes]:
    """The bytes of a tensor, or of a large one `BLOCKS` evenly spread blocks of them."""
    numbers = tensor.reshape(-1)  # a view of the file, or a copy where its strides are not those of its shape
    size = BLOCK // tensor.itemsize
    if numbers.size <= BLOCKS * size:
        yield numbers.tobytes()
        return
    for start in np.linspace(0, numbers.size - size, BLOCKS).astype(int):
        yield numbers[start : start + size].tobytes()
