"""How the cost grows: with the batch, the image's size, the number of labels, the model's size. What `plot` draws.

A panel is {series: [(x, milliseconds), ...]}; beside minclip's series stands what the machine's matrix products allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from minclip.bench import random_models
from minclip.bench.flops import image_work, text_work
from minclip.bench.measure import LIMIT, OURS, Run, take_turns
from minclip.bench.plan import Models, Plan, Report
from minclip.bench.sections import embed_with, text_tokens, tower_inputs
from minclip.contrastive import logits_per_image, probabilities, unit
from minclip.model import Model

Panel = dict[str, list[tuple[float, float]]]
BATCH, SIZE, LABELS, MODEL = "batch", "image size", "number of labels", "model size"
COUNTS = (1, 10, 100, 1000)  # of labels
AT_A_TIME = 256  # labels, as in Model.encode_text


def measure(plan: Plan, report: Report, models: Models) -> None:
    """Fill in `report.growth`: a panel for each thing that grows, of those that the checkpoint has."""
    panels: dict[str, Panel] = {}
    if "vision" in plan.config.towers:
        panels[BATCH] = batches(report)
        plan.note("growth with the image's size")
        panels[SIZE] = image_sizes(plan, report, models)
        plan.note("growth with the model's size")
        panels[MODEL] = model_sizes(plan, report)
    if plan.config.is_whole:
        plan.note("growth with the number of labels")
        panels[LABELS] = label_counts(plan, report, models)
    report.growth = {name: panel for name, panel in panels.items() if panel}


def batches(report: Report) -> Panel:
    """Milliseconds an image over the size of the batch: the rows of the table, peers included."""
    panel: Panel = {}
    for row in report.rows:
        if row.section == "images":
            batch, dtype = row.what.removeprefix("image tower, batch ").split(", ")
            for name in row.figures:
                series = name if dtype == "float32" else f"{name}, {dtype}"
                panel.setdefault(series, []).append((int(batch), 1e3 / row.median(name)))
    return panel


def image_sizes(plan: Plan, report: Report, models: Models) -> Panel:
    """Milliseconds an image over its side in pixels, from half to twice the checkpoint's, the positions stretched."""
    vision = plan.config.vision_config
    assert vision is not None
    patch = vision.patch_size
    sides = sorted({max(1, round(vision.image_size * factor / patch)) * patch for factor in (0.5, 1, 1.5, 2)})

    def run(model: Model, side: int) -> Run:
        pixels = np.zeros((1, vision.num_channels, side, side), np.float32)
        return lambda: model.vision_tower(pixel_values=pixels, interpolate_pos_encoding=True)

    panel = timed(plan, {name: {side: run(model, side) for side in sides} for name, model in named(models).items()})
    panel[LIMIT] = [(side, 1e3 * image_work(plan.config, side).flops / report.flops) for side in sides]
    return panel


def label_counts(plan: Plan, report: Report, models: Models) -> Panel:
    """Milliseconds to rank so many labels, encoded anew, for one image."""
    count = max(COUNTS)
    ids, pixels = tower_inputs(plan.config, "text", count), tower_inputs(plan.config, "vision", 1)

    def rank(model: Model, count: int) -> np.ndarray:
        encode = embed_with(model, "text")
        parts = [encode(ids[start : start + AT_A_TIME]) for start in range(0, count, AT_A_TIME)]
        rows = unit(np.concatenate(parts)[:count])
        return probabilities(logits_per_image(unit(embed_with(model, "vision")(pixels)), rows, model.logit_scale))

    runs = {name: {n: partial(rank, model, n) for n in COUNTS} for name, model in named(models).items()}
    panel = timed(plan, runs)
    text, image = text_work(plan.config, text_tokens(plan.config)).flops, image_work(plan.config).flops
    panel[LIMIT] = [(n, 1e3 * (image + n * text) / report.flops) for n in COUNTS]
    return panel


def model_sizes(plan: Plan, report: Report) -> Panel:
    """Milliseconds an image over the vision tower's GFLOP an image, from ViT-B/32 to ViT-H/14 with random weights."""
    panel: Panel = {}
    for name in random_models.VISION:
        config = random_models.vision_model(name)
        work = image_work(config)
        for backend in plan.backends:
            for dtype in plan.dtypes:
                series = label(backend, dtype)
                if f"{OURS} {backend} in {dtype}" in report.left_out:
                    continue
                try:
                    model = Model.from_config(config, **plan.load_options(backend, dtype))
                    pixels = tower_inputs(config, "vision", 1)
                    run = partial(embed_with(model, "vision"), pixels)
                    found = timed(plan, {series: {work.flops / 1e9: run}})
                except MemoryError:
                    report.left_out[f"{name} in the plot"] = "does not fit into the memory"
                    continue
                panel.setdefault(series, []).extend(found[series])
        panel.setdefault(LIMIT, []).append((work.flops / 1e9, 1e3 * work.flops / report.flops))
    return panel


def named(models: Models) -> dict[str, Model]:
    return {label(backend, dtype): model for (backend, dtype), model in models.items()}


def label(backend: str, dtype: str) -> str:
    """The name of a series, as in the table."""
    return f"{OURS} {backend}" if dtype == "float32" else f"{OURS} {backend}, {dtype}"


def timed(plan: Plan, runs: Mapping[str, Mapping[Any, Callable[[], object]]]) -> Panel:
    """Of each series and x the milliseconds, the median of rounds in which the series take turns."""
    panel: Panel = {name: [] for name in runs}
    for x in next(iter(runs.values()), {}):
        seconds = take_turns({name: series[x] for name, series in runs.items()}, min(3, plan.rounds))
        for name, times in seconds.items():
            panel[name].append((x, 1e3 * median(times)))
    return panel
