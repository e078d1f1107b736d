"""What a run is to measure, and what it found: handed from section to section."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from minclip import checkpoints
from minclip.bench import random_models
from minclip.bench.machine import Machine
from minclip.bench.measure import Row
from minclip.config import Config
from minclip.errors import BackendError
from minclip.loading import load
from minclip.model import Model

PREPACKED = "numpy prepacked"  # as a backend's name: NumPy's with `prepack=True`


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how.

    source: a checkpoint folder or a lone weight file, called `name` in the report. backends: names, `PREPACKED` among
    them. threads: None leaves everybody their own default. scratch: a folder for what is made on the way. note: called
    with what is being done.
    """

    name: str
    source: Path
    config: Config
    backends: Sequence[str]
    dtypes: Sequence[str]
    batch_sizes: Sequence[int]
    against: Sequence[str]
    rounds: int
    threads: int | None
    scratch: Path
    note: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """Where the files beside the weights lie."""
        return self.source if self.source.is_dir() else self.source.parent

    def load_options(self, backend: str, dtype: str) -> dict[str, Any]:
        """What `minclip.load` is given. On the CPU, as the peers."""
        if backend == PREPACKED:
            return {**self.load_options("numpy", dtype), "prepack": True}
        threads = {} if self.threads is None else {"threads": self.threads}
        return {"backend": backend, "device": "cpu", "dtype": dtype, **threads}


@dataclass
class Report:
    """What was found.

    rates: operations a second in float32 products, before and throughout the run. bandwidth: bytes a second from
    memory. left_out: what was not measured, and why. growth: see `minclip.bench.growth`.
    """

    machine: Machine
    model: str
    rates: list[float]
    bandwidth: float
    rounds: int
    threads: int | None
    rows: list[Row] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    growth: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    busy: int = 0

    @property
    def flops(self) -> float:
        """Operations a second that the machine makes in float32 products: the median of `rates`."""
        return median(self.rates)


def locate(model: str | None, scratch: Path) -> tuple[str, Path]:
    """The name and the place of the checkpoint: the one that is named, else a random ViT-B/32 written to `scratch`."""
    if model is not None:
        return model, checkpoints.locate(model)
    folder = scratch / "vit-b-32"
    random_models.write_in_a_process(random_models.SMALL, folder)
    return f"{random_models.SMALL}, random weights, the tokenizer of {random_models.TOKENIZER}", folder


Models = dict[tuple[str, str], Model]
"""By backend and dtype."""


def load_models(plan: Plan, report: Report) -> Models:
    """The checkpoint on each backend in each dtype; what a backend does not compute in is left out by name.

    Raises BackendError where nothing is left.
    """
    models: Models = {}
    failure: BackendError | None = None
    for backend in plan.backends:
        for dtype in plan.dtypes:
            try:
                models[backend, dtype] = load(plan.source, **plan.load_options(backend, dtype))
            except BackendError as error:
                failure = error
                report.left_out[f"minclip {backend} in {dtype}"] = str(error)
    if not models and failure is not None:
        raise failure
    return models
