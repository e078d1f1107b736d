"""Embedding with Ray Data: the shards of `minclip.search.shards`, made by actors on as many machines as there are.

An actor loads the model once, on a core or a share of a GPU, and makes one shard after the other in a folder that all
machines see. Ray makes a shard again whose machine was lost; since a shard takes its place whole, and is not made where
it is there, nothing is lost and nothing is there twice. A run that was cut off goes on in the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data

from minclip.errors import SearchError
from minclip.loading import load
from minclip.search.shards import Shard, blocks, is_made, make


class Maker:
    """An actor: a model, loaded once, that makes shards."""

    def __init__(self, folder: str, batch_size: int, source: str | None, options: dict[str, Any]) -> None:
        self.folder, self.batch_size = Path(folder), batch_size
        self.model = load(source, **options)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One row (number, of, entries, draft) to one row (number, pictures, broken)."""
        entries, draft = batch["entries"][0].tolist(), bool(batch["draft"][0])
        shard = Shard(int(batch["number"][0]), int(batch["of"][0]), entries, draft)
        pictures, broken = (0, 0)
        if not is_made(self.folder, shard):  # by a machine that was lost before it could report
            pictures, broken = make(self.folder, shard, self.model, batch_size=self.batch_size)
        return {"number": batch["number"], "pictures": np.array([pictures]), "broken": np.array([broken])}


def embed(
    entries: Sequence[str],
    folder: Path,
    count: int,
    *,
    address: str | None = None,
    source: str | None = None,
    batch_size: int = 32,
    draft: bool = False,
    gpus: float = 0,
    report: Callable[[int, int, int], None] = lambda number, pictures, broken: None,
    **options: Any,
) -> None:
    """Make `count` shards of the entries (pictures and tars, see `minclip.search.shards.entries`) in `folder`.

    address: of a Ray cluster; None is the one around this process, or else a new one on this machine. source, options:
    for `minclip.load`, on every machine. draft: as for `Model.encode_image`. gpus: what part of a GPU an actor takes;
    without, it takes a CPU core. report: is given each shard's number, how many pictures it has and how many of those
    are broken, when it is made.
    Raises SearchError where a machine cannot do it, naming why; the shards made before are kept.
    """
    shards = [shard for shard in blocks(entries, count, draft=draft) if not is_made(folder, shard)]
    if not shards:
        return
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # plans and tracebacks: errors are raised as well
    rows = [{**shard._asdict(), "entries": list(shard.entries)} for shard in shards]
    made = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Maker,
        batch_size=1,
        fn_constructor_args=(str(folder.absolute()), batch_size, source, options),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(rows)),
        **({"num_gpus": gpus} if gpus else {"num_cpus": 1}),
    )
    try:
        for row in made.iter_rows():
            report(int(row["number"]), int(row["pictures"]), int(row["broken"]))
    except ray.exceptions.RayError as error:
        cause = str(getattr(error, "cause", None) or error).strip().splitlines()
        raise SearchError(f"Ray could not make all shards: {cause[-1] if cause else type(error).__name__}") from None
