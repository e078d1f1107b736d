"""Competitors take turns, so that a busy moment of the machine hits all of them; medians of rounds and of ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Run = Callable[[], object]
LIMIT = "machine's limit"
OURS = "minclip"  # how the names of our own figures begin
PAUSE = 0.3  # seconds: threads of the competitor before wait for more work in a loop, on cores that the next one needs


def take_turns(runs: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """The seconds of each run in each round, after one that is not counted; with pauses where there are several."""
    for run in runs.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            time.sleep(PAUSE if len(runs) > 1 else 0)
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


@dataclass(frozen=True)
class Row:
    """One thing measured: the figures of each competitor, one a round, in `unit`.

    section: the part of the report ("images", ...). figures: by competitor; ours begin with `OURS`, and `LIMIT` is what
    the machine's matrix products allow. less_is_better: of seconds and bytes, not of rates. batch, dtype: where there
    is one.
    """

    section: str
    what: str
    unit: str
    figures: dict[str, list[float]]
    less_is_better: bool = False
    batch: int | None = None
    dtype: str | None = None

    @property
    def ours(self) -> list[str]:
        """The names of minclip's figures, one a backend."""
        return [name for name in self.figures if name.split()[0] == OURS]

    @property
    def others(self) -> list[str]:
        """Whom they are compared with: the limit and the peers."""
        return [name for name in self.figures if name not in self.ours]

    def median(self, name: str) -> float:
        return median(self.figures[name])

    def ratio(self, ours: str, other: str) -> float:
        """How many times better ours is: the median over the rounds, in each of which both had their turn."""
        pairs = zip(self.figures[ours], self.figures[other], strict=True)
        return median(theirs / mine if self.less_is_better else mine / theirs for mine, theirs in pairs)

    def as_json(self) -> dict[str, object]:
        """Everything, as `minclip bench --json` prints it."""
        return {
            "section": self.section,
            "what": self.what,
            "unit": self.unit,
            "less_is_better": self.less_is_better,
            "batch": self.batch,
            "dtype": self.dtype,
            "medians": {name: self.median(name) for name in self.figures},
            "ratios": {ours: {other: self.ratio(ours, other) for other in self.others} for ours in self.ours},
            "rounds": self.figures,
        }


def rates(seconds: Mapping[str, list[float]], count: int) -> dict[str, list[float]]:
    """So many things in these seconds, as things a second."""
    return {name: [count / second for second in times] for name, times in seconds.items()}
