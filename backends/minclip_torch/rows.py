"""Batches on a CPU, cut by their rows: each thread runs the whole tower for some of the images or texts.

torch's own threads share out one operator at a time, wait for one another after each, and what lies between two
operators is the whole batch's and in no cache. Threads that work apart, each on a part that fits, do without both.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import fields
from functools import lru_cache

import torch
from torch import Tensor

from minclip.inputs import ImageInputs, TextInputs
from minclip.threads import Team

Outputs = tuple[Tensor | None, ...]
"""What a tower gives: tensors of as many rows as it was given, or None for what the checkpoint lacks."""

TOKENS = 200  # with fewer for each thread, torch's own threads are faster: each of ours reads all weights
MOST_TOKENS = 1024  # for a thread at a time
_asking = threading.Lock()  # nobody asks torch for its number of threads while workers are given theirs


def by_rows(run: Callable[[slice], Outputs], count: int, tokens: int) -> Outputs:
    """`run` of the slices of range(count), of `tokens` each, in parts on as many threads as torch has; joined."""
    with _asking:
        threads = torch.get_num_threads()
        enough = count * tokens >= threads * TOKENS
        workers = _workers(threads, os.getpid()) if enough and threads > 1 else None
    if not enough:
        return run(slice(0, count))
    parts = Team(threads).split(count, max(1, MOST_TOKENS // tokens))
    if workers is None:
        outputs = [run(part) for part in parts]
    else:
        waiting = [workers.submit(torch.inference_mode()(run), part) for part in parts]
        try:
            wait(waiting)
        finally:
            for each in waiting:  # interrupted, what has not begun is not wanted
                each.cancel()
        outputs = [each.result() for each in waiting]
    return tuple(None if column[0] is None else torch.cat(column) for column in zip(*outputs, strict=True))


def compile_once(run: Callable[..., Outputs]) -> Callable[..., Outputs]:
    """`torch.compile` of a tower's run, for several threads: of those that come with inputs of shapes that are new, one
    goes ahead, so that the compiler works once and not for each."""
    program, first, known = torch.compile(run), threading.Lock(), set()

    def call(inputs: ImageInputs[Tensor] | TextInputs[Tensor], look: None, *, pooled_only: bool = False) -> Outputs:
        given = (getattr(inputs, field.name) for field in fields(inputs))
        kind = (pooled_only, torch.get_num_threads(), *(x.shape if isinstance(x, Tensor) else x for x in given))
        with nullcontext() if kind in known else first:
            outputs = program(inputs, look, pooled_only=pooled_only)
        known.add(kind)
        return outputs

    return call


@lru_cache(maxsize=1)
def _workers(count: int, process: int) -> ThreadPoolExecutor | None:
    """So many threads on which torch uses no further ones. None where no thread can be started.

    They are kept: a thread can be given its number only by setting the default of all that come to torch later, and
    that is put back when these have it. process: whose threads they are; a forked child has none of its parent's.
    """
    before, all_there = torch.get_num_threads(), threading.Barrier(count + 1)

    def alone() -> None:
        torch.get_num_threads()  # a thread takes the default once, when it first asks; not after it was given a number
        torch.set_num_threads(1)
        all_there.wait()

    workers = ThreadPoolExecutor(count, "minclip_torch")
    try:
        for _ in range(count):
            workers.submit(alone)
        all_there.wait()
    except RuntimeError:
        workers.shutdown(wait=False)
        return None
    finally:
        all_there.abort()  # whoever waits, because it was not to be
        torch.set_num_threads(before)
    return workers
