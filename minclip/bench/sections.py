"""The parts of the table that are measured in this process: towers, tokenizer, preprocessing, files to embeddings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minclip.bench import machine
from minclip.bench.flops import image_work, text_work
from minclip.bench.measure import LIMIT, OURS, Row, Run, rates, take_turns
from minclip.bench.peers import Embed, Peers, Tower, quiet
from minclip.bench.pictures import SIZE, picture, write_jpegs
from minclip.bench.plan import Models, Plan, Report
from minclip.config import Config
from minclip.errors import TokenizerError
from minclip.model import Model
from minclip.testing.probe import random_ids

TOKENS = 16  # of a text: a label in a template
IN_A_ROW = 10  # calls of a turn, besides turns of one, where a batch is one input
TEXTS = 5000
NUMBER_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
WORDS = ["cat", "dog", "car", "tree", "house", "bird", "fish", "boat", "plane", "train", "flower", "horse", "cup"]
CALLED: dict[Tower, tuple[str, str]] = {"vision": ("images", "image tower"), "text": ("texts", "text tower")}


# --- towers --------------------------------------------------------------------------------------------------------


def towers(plan: Plan, report: Report, models: Models, peers: Peers, tower: Tower) -> None:
    """Images or texts a second over the sizes of a batch, in each dtype."""
    unit, what = CALLED[tower]
    if tower not in plan.config.towers:
        report.left_out[what] = f"{plan.name} has none"
        return
    inputs = tower_inputs(plan.config, tower, max(plan.batch_sizes))
    tokens = f" of {inputs.shape[1]} tokens" if tower == "text" else ""
    for dtype in plan.dtypes:
        ours = {f"{OURS} {b}": embed_with(model, tower) for (b, d), model in models.items() if d == dtype}
        if not ours:
            continue
        plan.note(f"preparing the peers' {what} in {dtype}")
        made = {name: peers.make(name, tower, inputs[:1], dtype) for name in peers.contestants()}
        theirs = {name: embed for name, embed in made.items() if embed is not None}
        for batch in plan.batch_sizes:
            plan.note(f"{what}, {dtype}, batch {batch}")
            part = inputs[:batch]
            theirs = agreeing(theirs, next(iter(ours.values()))(part), part, peers, tower, dtype)
            for times in (1, IN_A_ROW) if batch == 1 else (1,):
                embeds = ours | theirs
                runs: dict[str, Run] = {name: partial(repeat, embed, part, times) for name, embed in embeds.items()}
                figures = measured(plan, report, peers, runs, tower, dtype, batch, batch * times)
                called = f"{what}, batch {batch}{tokens}, {f'{times} in a row, ' if times > 1 else ''}{dtype}"
                plotted = batch if times == 1 else None
                report.rows.append(Row(unit, called, f"{unit}/s", figures, batch=plotted, dtype=dtype))


def repeat(embed: Embed, part: np.ndarray, times: int) -> None:
    """A turn of so many calls. After a pause the first of them takes longer: cores have gone to sleep."""
    for _ in range(times):
        embed(part)


def agreeing(
    theirs: dict[str, Embed], ours: np.ndarray, part: np.ndarray, peers: Peers, tower: Tower, dtype: str
) -> dict[str, Embed]:
    """The peers that give the same embeddings of a batch; the others are left out by name."""
    found = {}
    for name, embed in theirs.items():
        what = f"{CALLED[tower][1]} in {dtype}, batch {len(part)}"
        answer = peers.attempt(name, partial(embed, part), what)
        if answer is not None and peers.agree(name, ours, answer, what, dtype):
            found[name] = embed
    return found


def measured(
    plan: Plan, report: Report, peers: Peers, runs: dict[str, Run], tower: Tower, dtype: str, batch: int, count: int
) -> dict[str, list[float]]:
    """Inputs a second in each round, of `count` in batches, and the limit that a matrix product of that round sets."""
    product = machine.product(dtype) if dtype in ("float32", "float64") else peers.product(dtype)
    with quiet():
        seconds = take_turns(runs | ({} if product is None else {LIMIT: product}), plan.rounds)
    figures = rates({name: seconds[name] for name in runs}, count)
    if product is not None and dtype == "float32":
        report.rates += [machine.PRODUCT_FLOPS / second for second in seconds[LIMIT]]
    if product is not None:
        work = image_work(plan.config) if tower == "vision" else text_work(plan.config, text_tokens(plan.config))
        size, bandwidth = NUMBER_BYTES[dtype], report.bandwidth
        figures[LIMIT] = [
            machine.limit(work, batch, machine.PRODUCT_FLOPS / second, bandwidth, size) for second in seconds[LIMIT]
        ]
    return figures


def embed_with(model: Model, tower: Tower) -> Embed:
    """A model's function from a batch to embeddings; of a tower without projection, its pooled output or logits."""
    name = "pixel_values" if tower == "vision" else "input_ids"
    if model.config.has_projection:
        features: Callable[..., Any] = model.get_image_features if tower == "vision" else model.get_text_features
        return lambda given: features(**{name: given})
    tower_alone: Callable[..., Any] = model.vision_tower if tower == "vision" else model.text_tower

    def embed(given: np.ndarray) -> np.ndarray:
        output = tower_alone(**{name: given})
        rows: np.ndarray = output.pooler_output if output.logits is None else output.logits
        return rows

    return embed


def tower_inputs(config: Config, tower: Tower, count: int) -> np.ndarray:
    """Noise: pixel_values (count, c, side, side) float32, or input_ids (count, t) int64 without padding."""
    rng = np.random.default_rng(0)
    if tower == "text":
        return random_ids(config, rng, np.ones((count, text_tokens(config)), bool))
    vision = config.vision_config
    assert vision is not None
    shape = (count, vision.num_channels, vision.image_size, vision.image_size)
    return rng.standard_normal(shape, dtype=np.float32)


def text_tokens(config: Config) -> int:
    """Tokens of the texts that are measured."""
    assert config.text_config is not None
    return min(TOKENS, config.text_config.context_length)


# --- what stands before the towers ---------------------------------------------------------------------------------


def tokenizer(plan: Plan, report: Report, model: Model, peers: Peers) -> None:
    """Short labels, whose words were seen before, to ids."""
    if "text" not in plan.config.towers:
        report.left_out["tokenizer"] = f"{plan.name} has no text tower"
        return
    try:
        ours = model.processor.tokenizer
    except TokenizerError as error:
        report.left_out["tokenizer"] = str(error)
        return
    plan.note("tokenizers")
    labels = ([f"a photo of a {a} and {b}" for a in WORDS for b in WORDS] * (1 + TEXTS // len(WORDS) ** 2))[:TEXTS]
    runs: dict[str, Run] = {OURS: partial(ours, labels)}
    if theirs := peers.tokenizer():
        runs["transformers"] = partial(theirs, labels)
    what = f"tokenizing {TEXTS:,} short labels whose words were seen"
    report.rows.append(Row("tokenizer", what, "texts/s", rates(take_turns(runs, plan.rounds), TEXTS)))


def preprocessing(plan: Plan, report: Report, model: Model, peers: Peers) -> None:
    """A decoded picture to pixel_values."""
    if "vision" not in plan.config.towers:
        report.left_out["preprocessing"] = f"{plan.name} has no vision tower"
        return
    plan.note("preprocessing")
    photo = picture(0, (512, 512))
    runs: dict[str, Run] = {OURS: partial(model.processor.image_processor, photo)}
    if theirs := peers.image_processor():
        runs["transformers"] = partial(theirs, photo)
    seconds = take_turns(runs, 4 * plan.rounds)
    milliseconds = {name: [1e3 * second for second in times] for name, times in seconds.items()}
    what = "512x512 picture to pixel_values"
    report.rows.append(Row("preprocessing", what, "ms", milliseconds, less_is_better=True))


# --- end to end ----------------------------------------------------------------------------------------------------


def end_to_end(plan: Plan, report: Report, models: Models, peers: Peers) -> None:
    """JPEG files to unit vectors, and the same from pictures that are decoded already."""
    if "vision" not in plan.config.towers or not plan.config.has_projection:
        report.left_out["JPEG files to embeddings"] = f"{plan.name} has no vision tower with a projection"
        return
    batch = max(plan.batch_sizes)
    paths = write_jpegs(plan.scratch, 2 * batch)
    arrays = [np.asarray(Image.open(path)) for path in paths]
    for dtype in plan.dtypes:
        ours = {f"{OURS} {b}": model for (b, d), model in models.items() if d == dtype}
        if not ours:
            continue
        plan.note(f"JPEG files to embeddings, {dtype}")
        peer = peers_encode(plan, peers, dtype, paths, batch)
        for given, what in ((paths, "JPEG files"), (arrays, "arrays")):
            runs: dict[str, Run] = {
                name: partial(model.encode_image, given, batch_size=batch) for name, model in ours.items()
            }
            if peer is not None and given is paths:
                runs["transformers"] = partial(peer, paths)
            figures = measured(plan, report, peers, runs, "vision", dtype, batch, len(paths))
            row = f"{len(paths)} {what} of {SIZE[0]}x{SIZE[1]} to embeddings, batch {batch}, {dtype}"
            report.rows.append(Row("end to end", row, "images/s", figures, batch=batch, dtype=dtype))


def peers_encode(
    plan: Plan, peers: Peers, dtype: str, paths: list[Path], batch: int
) -> Callable[[list[Path]], object] | None:
    """The same with Transformers: files opened, processed and run batch by batch. None where it cannot."""
    if "transformers" not in peers.names:
        return None
    processor = peers.image_processor()
    embed = peers.make("transformers", "vision", tower_inputs(plan.config, "vision", 1), dtype)
    if processor is None or embed is None:
        return None

    def encode(given: list[Path]) -> list[np.ndarray]:
        parts = [given[start : start + batch] for start in range(0, len(given), batch)]
        return [embed(processor([Image.open(path) for path in part])) for part in parts]

    works = peers.attempt("transformers", lambda: encode(paths[:1]), "JPEG files to embeddings")
    return None if works is None else encode
