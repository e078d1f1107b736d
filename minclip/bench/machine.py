"""The machine: what it is, and what it can do at most, which is the limit that every other figure stands beside."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from datetime import date
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from minclip.bench.flops import Work
from minclip.bench.measure import Run, take_turns
from minclip.products import Packed, small_kernels
from minclip.threads import Team, available_cores, linear_algebra

ROWS, WIDTH, INNER = 2048, 768, 3072  # a step of ViT-B's MLP for a batch of about 40 images
PRODUCT_FLOPS = 2 * ROWS * WIDTH * INNER
PART = 256  # rows of that for a thread at a time
TRIALS = 3
READ_BYTES = 2**28  # more than caches hold
CACHED = 2**26  # bytes of weights that a large cache may keep from one batch to the next
PACKAGES = ("torch", "transformers", "onnxruntime", "openvino")
VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # change the figures


@dataclass(frozen=True)
class Machine:
    """What the first line of a report says. packages: the versions of those of PACKAGES that are installed."""

    processor: str
    cores: int
    system: str
    python: str
    numpy: str
    linear_algebra: str
    packages: dict[str, str]
    environment: dict[str, str]
    date: str

    @classmethod
    def this(cls) -> Machine:
        """The one that this process runs on, today. Imports none of the packages."""
        found = {name: version_of(name) for name in PACKAGES}
        return cls(
            processor=processor_name(),
            cores=available_cores(),
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            numpy=np.__version__,
            linear_algebra=linear_algebra(),
            packages={name: number for name, number in found.items() if number is not None},
            environment={name: os.environ[name] for name in VARIABLES if name in os.environ},
            date=date.today().isoformat(),
        )

    def __str__(self) -> str:
        count = f"{self.cores} core{'s' if self.cores != 1 else ''}"
        parts = [self.processor, count, f"Python {self.python}", f"NumPy {self.numpy} with {self.linear_algebra}"]
        parts += [f"{name} {number}" for name, number in self.packages.items()]
        parts += [f"{name}={value}" for name, value in self.environment.items()]
        return ", ".join([*parts, self.date])

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def processor_name() -> str:
    """What the operating system calls the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    named = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine() or "an unknown processor")


def version_of(package: str) -> str | None:
    """The version of an installed package, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


# --- limits --------------------------------------------------------------------------------------------------------


@cache
def product(dtype: str) -> Run:
    """One matrix product of PRODUCT_FLOPS operations by NumPy on all cores, the faster of two ways: in one call, and as
    the towers take it (`minclip.products`), where they know a faster one. dtype: one that NumPy has."""
    a, w = np.ones((ROWS, WIDTH), dtype), np.ones((INNER, WIDTH), dtype)
    out = np.empty((ROWS, INNER), dtype)
    ways: list[Run] = [lambda: np.matmul(a, w.T, out=out)]
    if dtype != "float32" or not small_kernels():
        return ways[0]
    ways.append(partial(_in_small_products, a, Packed.of(w), out))
    return min(ways, key=lambda way: median(take_turns({"": way}, TRIALS)[""]))


def _in_small_products(a: np.ndarray, w: Packed, out: np.ndarray) -> None:
    """a (m, d) times the transpose of w (f, d), every thread a part of the rows."""

    def some(rows: slice) -> None:
        out[rows] = a[rows] @ w.T

    with Team().at_work() as team:
        team.map(some, team.split(len(a), PART))


def product_rate(rounds: int, run: Run | None = None) -> float:
    """Operations a second in float32 products, or in those of `run`, the median of the rounds."""
    return PRODUCT_FLOPS / median(take_turns({"": run or product("float32")}, rounds)[""])


def memory_bandwidth(rounds: int) -> float:
    """Bytes a second that a product of a matrix and a vector, which uses each number once, gets from memory."""
    matrix = np.ones((READ_BYTES // 4 // 8192, 8192), np.float32)
    vector = np.ones(8192, np.float32)
    out = np.empty(len(matrix), np.float32)
    return READ_BYTES / median(take_turns({"": lambda: np.matmul(matrix, vector, out=out)}, rounds)[""])


def limit(work: Work, batch: int, flops: float, bandwidth: float, number_bytes: int) -> float:
    """How many inputs a second the machine allows (the roofline of Williams et al. 2009).

    A batch takes as long as its operations at `flops` a second, or as reading the weights once at `bandwidth` bytes a
    second where that is longer. Weights that a cache may keep count as there already.
    """
    read = work.weights * number_bytes
    return batch / max(batch * work.flops / flops, read / bandwidth if read > CACHED else 0.0)
