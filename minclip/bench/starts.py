"""Whole processes: from their start to the first answer, and the memory they take at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from minclip import checkpoints
from minclip.bench.measure import OURS, Row
from minclip.bench.pictures import write_jpegs
from minclip.bench.plan import Plan, Report

LABELS = ["a cat", "a dog", "an astronaut"]
CODE = "import sys, minclip; print(minclip.load(sys.argv[1], **{options!r}).zero_shot(sys.argv[2], {labels!r}))"
PEERS_CODE = (
    "import sys; from transformers import pipeline; "
    "found = pipeline('zero-shot-image-classification', model=sys.argv[1], device='cpu'); "
    "print(found(sys.argv[2], candidate_labels={labels!r}))"
)


def first_answer(plan: Plan, report: Report) -> None:
    """From process start to the ranking of three labels for a JPEG file: seconds, and peak resident memory."""
    if not plan.config.is_whole:
        report.left_out["first answer"] = f"needs both towers; {plan.name} holds {' and '.join(plan.config.towers)}"
        return
    plan.note("starting processes, by turns")
    (picture,) = write_jpegs(plan.scratch, 1)
    given = [str(plan.source), str(picture)]
    options = {backend: plan.load_options(backend, plan.dtypes[0]) for backend in plan.backends}
    commands = {
        f"{OURS} {backend}": [sys.executable, "-c", CODE.format(options=chosen, labels=LABELS), *given]
        for backend, chosen in options.items()
    }
    if "transformers" in plan.against and "transformers" in report.machine.packages:
        commands["transformers"] = [sys.executable, "-c", PEERS_CODE.format(labels=LABELS), *given]
    found = by_turns(commands, plan.rounds, plan.threads)
    done = {name: taken for name, taken in found.items() if taken["error"] is None}
    for name, taken in found.items():
        if taken["error"] is not None:
            report.left_out[f"{name}, first answer"] = f"{taken['error']:.160}"
    if not any(name.startswith(OURS) for name in done):
        return
    weights = sum(file.stat().st_size for file in checkpoints.weight_files(plan.source)) / 2**20
    what = f"process start to answer, 1 image, {len(LABELS)} labels, {plan.dtypes[0]}"
    seconds = {name: taken["seconds"] for name, taken in done.items()}
    report.rows.append(Row("first answer", what, "s", seconds, less_is_better=True))
    if all(taken["bytes"] for taken in done.values()):
        memory = {name: [count / 2**20 for count in taken["bytes"]] for name, taken in done.items()}
        what = f"peak memory of that (weight file: {weights:,.0f} MiB)"
        report.rows.append(Row("first answer", what, "MiB", memory, less_is_better=True))
    else:
        report.left_out["peak memory"] = "this system has no os.wait4, which tells it"


def by_turns(commands: Mapping[str, list[str]], rounds: int, threads: int | None) -> dict[str, dict]:
    """What `launcher` says of these commands. threads: for each library that reads OMP_NUM_THREADS."""
    environment = dict(os.environ)
    if threads is not None:
        environment |= {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-S", str(Path(__file__).with_name("launcher.py"))],
        input=json.dumps({"commands": commands, "rounds": rounds}),
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        check=True,
    )
    found: dict[str, dict] = json.loads(done.stdout)
    return found
