"""Random models and inputs of every family, as hypothesis strategies: what `minclip.testing` draws from.

Everything is small (a forward pass takes a millisecond) and meant to be nasty: odd head counts, patches that leave a
rest, text of one token, padding on either side and in the middle. Hypothesis chooses sizes and kinds; the numbers come
from NumPy's generator and a seed, so that a failing case is reported in a few lines and built again from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minclip.config import ACTIVATIONS, POSITION_TYPES, Config, RobertaConfig, TextConfig, VisionConfig
from minclip.errors import ConfigError
from minclip.families import FAMILIES
from minclip.images import ImageProcessor
from minclip.shapes import expected_shapes
from minclip.testing.probe import random_ids
from minclip.weights import BFLOAT16, Weights

SEEDS = st.integers(0, 2**32 - 1)


# --- configs -------------------------------------------------------------------------------------------------------


Families = str | Sequence[str] | None
"""A family's name, several of them, or None: all that there are."""


def _families(chosen: Families) -> list[str]:
    return [chosen] if isinstance(chosen, str) else sorted(FAMILIES if chosen is None else chosen)


@st.composite
def configs(draw: st.DrawFn, family: Families = None, least_width: int = 8) -> Config:
    """Whole models of the families, whose towers and embeddings have at least that many channels."""
    family = draw(st.sampled_from(_families(family)))
    given = {
        "model_type": family,
        "text_config": draw(_text_config(family, least_width)),
        "vision_config": draw(_vision_config(least_width)),
        "projection_dim": draw(st.integers(least_width, least_width + 12)),
        "logit_scale_init_value": draw(st.sampled_from([2.6592, 0.0, 4.6052])),
    }
    return Config.from_dict(given)


@st.composite
def single_towers(
    draw: st.DrawFn, least_width: int = 8, families: Families = None, towers: Sequence[str] = ("text", "vision")
) -> Config:
    """Checkpoints of one tower, with and without its projection."""
    family, tower = draw(st.sampled_from(_families(families))), draw(st.sampled_from(towers))
    fields = draw(_text_config(family, least_width) if tower == "text" else _vision_config(least_width))
    projected = draw(st.booleans()) and FAMILIES[family].heads_alone
    name = f"{FAMILIES[family].class_prefix}{tower.title()}Model{'WithProjection' if projected else ''}"
    return Config.from_dict({**fields, "model_type": f"{family}_{tower}_model", "architectures": [name]})


@st.composite
def classifiers(draw: st.DrawFn, least_width: int = 8, families: Families = None) -> Config:
    """Checkpoints of a vision tower with an image-classification head; a file without labels means two."""
    family = draw(st.sampled_from([name for name in _families(families) if FAMILIES[name].heads_alone]))
    labels = {str(i): f"label {i}" for i in range(draw(st.sampled_from([0, 1, 3, 7])))}
    given = {
        "model_type": family,
        "architectures": [f"{FAMILIES[family].class_prefix}ForImageClassification"],
        "vision_config": draw(_vision_config(least_width)),
        "id2label": labels,
    }
    return Config.from_dict(given)


@st.composite
def _tower_config(draw: st.DrawFn, least_width: int) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 3, 5]))
    head_width = max(draw(st.sampled_from([2, 3, 4, 7, 8, 16])), -(-least_width // heads))
    return {
        "num_attention_heads": heads,
        "hidden_size": heads * head_width,
        "intermediate_size": draw(st.integers(1, 40)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "hidden_act": draw(st.sampled_from(ACTIVATIONS)),
        "layer_norm_eps": draw(st.sampled_from([1e-5, 1e-12, 1e-6, 1e-3, 0.05])),
        "projection_dim": draw(st.integers(least_width, least_width + 12)),
    }


@st.composite
def _vision_config(draw: st.DrawFn, least_width: int) -> dict[str, Any]:
    patch = draw(st.integers(1, 6))
    side = draw(st.integers(patch, 4 * patch + patch - 1))
    channels = draw(st.sampled_from([3, 3, 3, 1, 4]))
    return {**draw(_tower_config(least_width)), "patch_size": patch, "image_size": side, "num_channels": channels}


@st.composite
def _text_config(draw: st.DrawFn, family: str, least_width: int) -> dict[str, Any]:
    own = next(fields for kind, fields in OWN_FIELDS.items() if issubclass(FAMILIES[family].text_config, kind))
    return {
        **draw(_tower_config(least_width)),
        **draw(own(draw(st.integers(8, 60)), draw(st.integers(1, 20)), least_width)),
    }


@st.composite
def _causal_fields(draw: st.DrawFn, vocab: int, context: int, least_width: int) -> dict[str, Any]:
    ends = [2, 2, vocab - 1, vocab // 2]  # 2 means the largest id in CLIP, and 2 elsewhere
    return {"vocab_size": vocab, "max_position_embeddings": context, "eos_token_id": draw(st.sampled_from(ends))}


@st.composite
def _roberta_fields(draw: st.DrawFn, vocab: int, context: int, least_width: int) -> dict[str, Any]:
    pad = draw(st.integers(0, 3))
    return {
        "vocab_size": vocab,
        "max_position_embeddings": pad + 1 + context,
        "pad_token_id": pad,
        "type_vocab_size": draw(st.integers(1, 3)),
        "position_embedding_type": draw(st.sampled_from(POSITION_TYPES)),
        "project_dim": draw(st.integers(least_width, least_width + 12)),
    }


OWN_FIELDS: dict[type, Any] = {TextConfig: _causal_fields, RobertaConfig: _roberta_fields}
"""What sets the text towers apart, by the class of their config: (vocabulary, tokens, least width) -> fields."""


# --- weights -------------------------------------------------------------------------------------------------------


def weights(config: Config, seed: int, temper: str = "loud", stored: str = "float32") -> Weights:
    """Normally distributed weights, nothing of which is trivial: biases, gains and tables all matter.

    temper: "loud": attention is sharp and every step is of the order of 1, so that a slip anywhere shows at the end.
    "quiet": what enters each norm has a variance of about `layer_norm_eps`, so that the epsilon counts.
    stored: "float32", "float16" or "bfloat16", the type of the tensors in the checkpoint.
    """
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        if name == "logit_scale":
            tensors[name] = np.array(config.logit_scale_init_value, np.float32)
            continue
        tower = config.vision_config if name.startswith("vis") else config.text_config
        eps = 1e-5 if tower is None else tower.layer_norm_eps
        mean, spread = _distribution(name, shape, temper, max(eps, 1e-6) ** 0.5)
        tensors[name] = _as_stored((mean + spread * rng.standard_normal(shape)).astype(np.float32), stored)
    return Weights(tensors)


def _distribution(name: str, shape: tuple[int, ...], temper: str, quiet: float) -> tuple[float, float]:
    """Mean and deviation of a tensor's numbers."""
    volume = quiet if temper == "quiet" and any(part in name for part in TO_A_NORM) else 1.0
    if len(shape) == 1 and name.endswith(".weight"):  # the gain of a norm
        return volume, 0.3 * volume
    if name.endswith(".bias"):
        return 0.0, 0.5 * volume
    if "embedding" in name and "patch" not in name:
        return 0.0, volume
    sharp = any(part in name for part in ("q_proj", "k_proj", "query", "key"))
    return 0.0, volume * (1.5 if sharp else 1.0) / float(np.prod(shape[1:])) ** 0.5


# Tensors whose size passes on to what a norm is taken of: tables, norms that feed the residual, ends of branches.
TO_A_NORM = (
    "embedding", "pre_layrnorm", "out_proj", "fc2", "roberta.embeddings", "output.dense", "output.LayerNorm",
)  # fmt: skip


def _as_stored(array: np.ndarray, dtype: str) -> np.ndarray:
    """The array as a file of that type holds it; bfloat16 is the upper half of a float32."""
    if dtype == "bfloat16":
        return (array.view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)
    return array.astype(dtype)


@dataclass(frozen=True, repr=False)
class RandomModel:
    """A config with the recipe of its weights. Its repr is short, and evaluates to the same model."""

    config: Config
    seed: int
    temper: str = "loud"
    stored: str = "float32"

    @cached_property
    def weights(self) -> Weights:
        return weights(self.config, self.seed, self.temper, self.stored)

    def __repr__(self) -> str:
        fields = _set_fields(self.config)
        return f"RandomModel(Config.from_dict({fields}), {self.seed}, {self.temper!r}, {self.stored!r})"


def _set_fields(config: Config) -> dict[str, Any]:
    """A config.json's content without what `Config.from_dict` fills in: what to read of a random config."""
    given = config.to_dict()
    read = Config.from_dict(given).to_dict()
    for path in [(key,) for key in given] + [
        (tower, key) for tower in ("text_config", "vision_config") for key in given.get(tower, ())
    ]:
        *above, key = path
        holder = given.get(above[0], {}) if above else given
        if key not in holder:  # its tower was left out as a whole
            continue
        value = holder.pop(key)
        try:
            needed = Config.from_dict(given).to_dict() != read
        except ConfigError:
            needed = True
        if needed:
            holder[key] = value
    return given


@st.composite
def models(
    draw: st.DrawFn, config: st.SearchStrategy[Config], temper: str | None = None, stored: str = "float32"
) -> RandomModel:
    """A config from `config` with weights of that temper, or of either."""
    temper = draw(st.sampled_from(["loud", "quiet"])) if temper is None else temper
    return RandomModel(draw(config), draw(SEEDS), temper, stored)


# --- inputs --------------------------------------------------------------------------------------------------------


def inputs(config: Config) -> st.SearchStrategy[dict[str, np.ndarray]]:
    """Texts and images for the towers that the config has."""
    texts = text_inputs(config) if "text" in config.towers else st.just({})
    images = image_inputs(config) if "vision" in config.towers else st.just({})
    return st.builds(lambda text, image: {**text, **image}, texts, images)


PADDINGS = ("right", "left", "holes", "unmasked", "none")


@st.composite
def text_inputs(
    draw: st.DrawFn, config: Config, paddings: tuple[str, ...] = PADDINGS, batch: int = 0
) -> dict[str, np.ndarray]:
    """input_ids (b, t), and attention_mask (b, t) unless the padding is "unmasked" or "none"; in every row an end.

    paddings: "right", "left"; "holes" are masked tokens anywhere but at the end; "unmasked": ids after the end, and
    no mask. batch: so many rows (default 1 to 4).
    Towers with more than one token type also get token_type_ids.
    """
    text = config.text_config
    assert text is not None
    t = draw(st.integers(1, text.context_length))
    b = batch or draw(st.integers(1, 4))
    padding = draw(st.sampled_from(paddings))
    pad_with_end, mask_type = draw(st.booleans()), draw(st.sampled_from(["int64", "int32", "bool"]))
    rng = np.random.default_rng(draw(SEEDS))
    lengths = np.full(b, t) if padding in ("none", "holes") else rng.integers(1, t + 1, b)
    start = t - lengths if padding == "left" else np.zeros(b, int)
    columns = np.arange(t)
    real = (columns >= start[:, None]) & (columns < (start + lengths)[:, None])  # (b, t)
    ids = random_ids(config, rng, real, pad_with_end=pad_with_end and padding != "left")
    if padding == "holes":
        real &= rng.random((b, t)) < 0.6
        real[np.arange(b), start + lengths - 1] = True
    given = {"input_ids": ids}
    if padding not in ("unmasked", "none"):
        given["attention_mask"] = real.astype(mask_type)
    if (types := getattr(text, "type_vocab_size", 1)) > 1:
        given["token_type_ids"] = rng.integers(0, types, (b, t))
    return given


@st.composite
def image_inputs(draw: st.DrawFn, config: Config, *, interpolate: bool = False, batch: int = 0) -> dict[str, Any]:
    """pixel_values (b, c, height, width), from flat to far out of range. interpolate: of any size,
    with interpolate_pos_encoding.
    """
    vision = config.vision_config
    assert isinstance(vision, VisionConfig)
    sides = st.integers(vision.patch_size, 3 * vision.image_size) if interpolate else st.just(vision.image_size)
    shape = (batch or draw(st.integers(1, 4)), vision.num_channels, draw(sides), draw(sides))
    kind = draw(st.sampled_from(["noise", "black and white", "flat", "out of range"]))
    rng = np.random.default_rng(draw(SEEDS))
    values = {
        "noise": rng.standard_normal(shape),
        "black and white": rng.choice([-1.8, 2.2], shape),
        "flat": np.broadcast_to(rng.choice([-1.8, 0.0, 2.2], (shape[0], 1, 1, 1)), shape),
        "out of range": 30 * rng.standard_normal(shape),
    }[kind]
    pixels = {"pixel_values": np.ascontiguousarray(values, np.float32)}
    return {**pixels, "interpolate_pos_encoding": True} if interpolate else pixels


@st.composite
def optional_text_inputs(draw: st.DrawFn, config: Config) -> dict[str, np.ndarray]:
    """`text_inputs`, and any of what few people pass: position_ids, inputs_embeds, head_mask (layers, h)."""
    text = config.text_config
    assert text is not None
    given = draw(text_inputs(config))
    (b, t), rng = given["input_ids"].shape, np.random.default_rng(draw(SEEDS))
    further: dict[str, np.ndarray] = {
        "position_ids": rng.integers(0, text.max_position_embeddings, (b, t)),
        "inputs_embeds": rng.standard_normal((b, t, text.hidden_size)).astype(np.float32),
        "head_mask": rng.random((text.num_hidden_layers, text.num_attention_heads)).round(1).astype(np.float32),
    }
    return given | {name: further[name] for name in draw(st.sets(st.sampled_from(sorted(further)), min_size=1))}


@st.composite
def image_processors(draw: st.DrawFn) -> ImageProcessor:
    """Processors that bring pictures of any size to one size."""
    side, other = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    crops = draw(st.booleans())
    edges = draw(st.sampled_from([{"shortest_edge": side}, {"height": side, "width": other}]))
    return ImageProcessor(
        do_resize=draw(st.booleans()) if crops else True,
        size=edges if crops else {"height": side, "width": other},
        resample=draw(st.integers(0, 5)),
        do_center_crop=crops,
        crop_size={"height": draw(st.integers(1, 24)), "width": draw(st.integers(1, 24))},
        do_rescale=draw(st.booleans()),
        do_normalize=draw(st.booleans()),
    )


@st.composite
def pictures(draw: st.DrawFn) -> list[np.ndarray]:
    """Pictures of bytes (h, w, 3) and of mixed sizes, from noise to black and white."""
    sizes = draw(st.lists(st.tuples(st.integers(1, 48), st.integers(1, 48)), min_size=1, max_size=4))
    rng, levels = np.random.default_rng(draw(SEEDS)), draw(st.sampled_from([256, 2]))
    return [(rng.integers(0, levels, (*size, 3)) * (255 // (levels - 1))).astype(np.uint8) for size in sizes]


@dataclass(frozen=True)
class Case:
    """A model and what it is called with."""

    model: RandomModel
    inputs: dict[str, Any]


@st.composite
def cases(
    draw: st.DrawFn,
    /,
    config: st.SearchStrategy[Config],
    of: Any = inputs,
    *,
    temper: str | None = None,
    stored: str = "float32",
    **limits: Any,
) -> Case:
    """A model with a config from `config`, and inputs from `of(config, **limits)`."""
    model = draw(models(config, temper, stored))
    return Case(model, draw(of(model.config, **limits)))
