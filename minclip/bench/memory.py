"""How much memory a model takes for five texts: `minclip bench --memory`.

The weight file is mapped, and of its table of tokens only the rows in use are read. That is seen best on MetaCLIP 2
huge, half of whose 1.9 billion parameters are that table.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from minclip import checkpoints
from minclip.bench import random_models
from minclip.bench.measure import OURS, Row
from minclip.bench.plan import Report
from minclip.bench.starts import by_turns
from minclip.errors import CheckpointError
from minclip.testing.probe import random_ids

TEXTS, TOKENS = 5, 12
CODE = "import sys, minclip, numpy as np; minclip.load(sys.argv[1]).text_tower(input_ids=np.load(sys.argv[2]))"
PEERS_CODE = (
    "import sys, torch, transformers, numpy as np; model = transformers.AutoModel.from_pretrained(sys.argv[1]); "
    "getattr(model, 'get_text_features', model)(input_ids=torch.from_numpy(np.load(sys.argv[2])))"
)


def measure(report: Report, model: str | None, against: Sequence[str], note: Callable[[str], None]) -> None:
    """Peak memory and seconds of a process that embeds five texts, in the row's figures one each.

    model: as it is stored; None is MetaCLIP 2 huge with random weights in float32 and in bfloat16, 8 GB of disk and of
    memory while it is made. Raises CheckpointError for a model without a text tower.
    """
    report.model, report.rounds = model or f"{random_models.HUGE}, random weights", 1
    if model is not None:
        take(report, model, checkpoints.locate(model), against)
        return
    for dtype in ("float32", "bfloat16"):
        note(f"writing {random_models.HUGE} in {dtype}")
        with huge(dtype) as folder:
            note("embedding five texts in processes of their own")
            take(report, f"{random_models.HUGE} in {dtype}", folder, against)


@contextmanager
def huge(dtype: str) -> Iterator[Path]:
    """A folder with MetaCLIP 2 huge, for a while."""
    with tempfile.TemporaryDirectory() as scratch:
        random_models.write_in_a_process(random_models.HUGE, Path(scratch) / "huge", dtype)
        yield Path(scratch) / "huge"


def take(report: Report, name: str, source: Path, against: Sequence[str]) -> None:
    """Add the rows of one checkpoint."""
    config, _ = checkpoints.read(source)
    if "text" not in config.towers or config.text_config is None:
        raise CheckpointError(f"{name} has no text tower, and --memory embeds texts; name a checkpoint that has one")
    tokens = min(TOKENS, config.text_config.context_length)
    with tempfile.TemporaryDirectory() as scratch:
        ids = Path(scratch) / "ids.npy"
        np.save(ids, random_ids(config, np.random.default_rng(0), np.ones((TEXTS, tokens), bool)))
        codes = {OURS: CODE}
        if "transformers" in against and "transformers" in report.machine.packages:
            codes["transformers"] = PEERS_CODE
        commands = {who: [sys.executable, "-c", code, str(source), str(ids)] for who, code in codes.items()}
        found = by_turns(commands, 1, report.threads)
    for who, taken in found.items():
        if taken["error"] is not None:
            report.left_out[f"{who}, {name}"] = f"{taken['error']:.160}"
    done = {who: taken for who, taken in found.items() if taken["error"] is None}
    if OURS not in done:
        return
    size = sum(file.stat().st_size for file in checkpoints.weight_files(source)) / 2**20
    what = f"{TEXTS} texts, {name} ({size:,.0f} MiB)"
    memory = {who: [count / 2**20 for count in taken["bytes"]] for who, taken in done.items()}
    if all(memory.values()):
        report.rows.append(Row("memory", f"{what}: peak memory", "MiB", memory, less_is_better=True))
    else:
        report.left_out["peak memory"] = "this system has no os.wait4, which tells it"
    seconds = {who: taken["seconds"] for who, taken in done.items()}
    report.rows.append(Row("memory", f"{what}: process", "s", seconds, less_is_better=True))
