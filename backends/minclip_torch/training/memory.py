"""Batches that do not fit into memory: refused beforehand where that is certain, one line where an allocation fails."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator

import torch

from minclip_torch.training.recipe import RecipeError
from minclip_torch.training.run_folder import TrainingError


def check_batch(batch_size: int, rows: int, side: int, decoded: int, device: torch.device) -> None:
    """Raise RecipeError where one batch alone exceeds the machine's memory: the system would kill the process.

    rows: of the batch, those of this process. side, decoded: of images as the tower takes them, and as decoded.
    """
    need = rows * 4 * (5 * decoded**2 + 4 * side**2)  # RGBA as bytes and as float32, and the augmented images
    if device.type == "cpu":
        need = max(need, 4 * batch_size**2)  # the cosines of all images with all texts
    if need > (memory := machine_memory()):
        raise RecipeError(
            f"a step with batch_size {batch_size} takes more than {need / 1e9:.0f} GB of memory and this machine has "
            f"{memory / 1e9:.0f} GB; take a smaller batch_size"
        )


def machine_memory() -> float:
    """The machine's memory in bytes; infinite where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return math.inf


@contextlib.contextmanager
def out_of_memory(device: torch.device, step: int, chunk: int) -> Iterator[None]:
    """Turn a failed allocation into a TrainingError that says what to change. chunk: rows that are computed at once."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # torch's CPU allocator raises a plain RuntimeError
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        advice = f"a chunk_size below {chunk} (it keeps all negatives) or a smaller batch_size"
        raise TrainingError(f"{device} ran out of memory at step {step}; begin a new run with {advice}") from None
