"""Several processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist

from minclip.errors import BackendError, MinclipError

T = TypeVar("T")


def processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is; the first, 0, writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def everyone(value: T) -> list[T]:
    """What each process gave, in order of rank. All wait here for the last one."""
    if processes() == 1:
        return [value]
    found: list[T] = [value] * processes()
    dist.all_gather_object(found, value)
    return found


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A passage that all processes get through, or none: what one of them refuses, all refuse, and nobody waits."""
    refusal: MinclipError | OSError | None = None
    try:
        yield
    except (MinclipError, OSError) as error:
        refusal = error
    refusals = [found for found in everyone(refusal) if found is not None]
    if refusals:
        raise refusals[0]


@contextlib.contextmanager
def joined(device: str) -> Iterator[None]:
    """Meet the other processes where the environment names some, on "cuda" each with a GPU of its own.

    Raises BackendError where there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if device == "cuda":
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise BackendError(f"process {local} of this machine finds {gpus} GPUs: start no more processes than that")
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
