"""How the cost grows: with the batch, the image's size, the number of labels, the model's size. What `plot` draws.

A panel is {series: [(x, milliseconds), ...]}; beside minclip's series stands what the machine's matrix products allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median

import numpy as np

from minclip.bench import machine, random_models
from minclip.bench.flops import image_work, text_work
from minclip.bench.measure import LIMIT, OURS, Run, take_turns
from minclip.bench.plan import Models, Plan, Report
from minclip.bench.sections import embed_with, tower_inputs
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
        panels[SIZE] = image_sizes(plan, models)
        plan.note("growth with the model's size")
        panels[MODEL] = model_sizes(plan, report, models)
    if plan.config.is_whole:
        plan.note("growth with the number of labels")
        panels[LABELS] = label_counts(plan, models)
    report.growth = {name: panel for name, panel in panels.items() if panel}


def batches(report: Report) -> Panel:
    """Milliseconds an image over the size of the batch: the rows of the table, peers included."""
    panel: Panel = {}
    for row in report.rows:
        if row.section == "images" and row.batch is not None:
            for name in row.figures:
                called = name if row.dtype == "float32" else f"{name}, {row.dtype}"
                panel.setdefault(called, []).append((row.batch, 1e3 / row.median(name)))
    return panel


def image_sizes(plan: Plan, models: Models) -> Panel:
    """Milliseconds an image over its side in pixels, from half to twice the checkpoint's, the positions stretched."""
    vision = plan.config.vision_config
    assert vision is not None
    patch = vision.patch_size
    sides = sorted({max(1, round(vision.image_size * factor / patch)) * patch for factor in (0.5, 1, 1.5, 2)})

    def run(model: Model, side: int) -> Run:
        pixels = np.zeros((1, vision.num_channels, side, side), np.float32)
        return lambda: model.vision_tower(pixel_values=pixels, interpolate_pos_encoding=True)

    panel: Panel = {}
    for side in sides:
        runs = {name: run(model, side) for name, model in named(models).items()}
        add(panel, side, runs, image_work(plan.config, side).flops, plan)
    return panel


def label_counts(plan: Plan, models: Models) -> Panel:
    """Milliseconds to rank so many labels, encoded anew, for one image."""
    ids, pixels = tower_inputs(plan.config, "text", max(COUNTS)), tower_inputs(plan.config, "vision", 1)
    text, image = text_work(plan.config, ids.shape[1]).flops, image_work(plan.config).flops

    def rank(model: Model, labels: np.ndarray) -> np.ndarray:
        parts = [labels[start : start + AT_A_TIME] for start in range(0, len(labels), AT_A_TIME)]
        texts = unit(np.concatenate([embed_with(model, "text")(part) for part in parts]))
        return probabilities(logits_per_image(unit(embed_with(model, "vision")(pixels)), texts, model.logit_scale))

    panel: Panel = {}
    for count in COUNTS:
        runs = {name: partial(rank, model, ids[:count]) for name, model in named(models).items()}
        add(panel, count, runs, image + count * text, plan)
    return panel


def model_sizes(plan: Plan, report: Report, models: Models) -> Panel:
    """Milliseconds an image over the vision tower's GFLOP an image, from ViT-B/32 to ViT-H/14 with random weights."""
    panel: Panel = {}
    for name in random_models.VISION:
        config = random_models.vision_model(name)
        flops, pixels = image_work(config).flops, tower_inputs(config, "vision", 1)
        for backend, dtype in models:
            try:
                model = Model.from_config(config, **plan.load_options(backend, dtype))
                run = partial(embed_with(model, "vision"), pixels)
                add(panel, flops / 1e9, {series(backend, dtype): run}, flops, plan)
            except MemoryError:
                report.left_out[f"{name} in the plot"] = "does not fit into the memory"
    return panel


def named(models: Models) -> dict[str, Model]:
    """The models by the names of their series."""
    return {series(backend, dtype): model for (backend, dtype), model in models.items()}


def series(backend: str, dtype: str) -> str:
    """The name of a series, as in the table."""
    return f"{OURS} {backend}" if dtype == "float32" else f"{OURS} {backend}, {dtype}"


def add(panel: Panel, x: float, runs: Mapping[str, Run], flops: int, plan: Plan) -> None:
    """A point for each series at x: milliseconds, the median of rounds in which they take turns, and the limit."""
    seconds = take_turns({**runs, LIMIT: machine.product("float32")}, min(3, plan.rounds))
    for name, times in seconds.items():
        share = flops / machine.PRODUCT_FLOPS if name == LIMIT else 1
        points = panel.setdefault(name, [])
        if x not in (there for there, _ in points):  # of models that are measured one at a time, all have a limit
            points.append((x, 1e3 * share * median(times)))
