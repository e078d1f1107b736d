"""Several processes that train one model together, as torchrun starts them (torch.distributed)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TypeVar

import torch
import torch.distributed as dist

from minclip.errors import BackendError, MinclipError

T = TypeVar("T")


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0. Rank 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


def all_gather(value: T) -> list[T]:
    """The value of each process, in order of rank. Every process must call it, and waits for the others."""
    if world_size() == 1:
        return [value]
    found: list[T] = [value] * world_size()
    dist.all_gather_object(found, value)
    return found


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """A block that all processes finish, or none: an error of minclip's in one is raised in all, and nobody waits."""
    error: MinclipError | OSError | None = None
    try:
        yield
    except (MinclipError, OSError) as own:
        error = own
    errors = [found for found in all_gather(error) if found is not None]
    if errors:
        raise errors[0]


@contextlib.contextmanager
def process_group(device: str) -> Iterator[None]:
    """Join the processes that torchrun's environment variables name, if any; on "cuda" each takes a GPU of its own.

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
