"""Random weights to begin training from, distributed as Transformers draws them for the same config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from minclip.config import AnyTowerConfig, Config
from minclip.errors import CheckpointError
from minclip.ranking import checked_labels
from minclip.shapes import expected_shapes
from minclip.weights import Weights


def initial_weights(config: Config, seed: int = 0) -> Weights:
    """Weights for every tensor of the config, float32: normal with the deviations of `_deviation`.

    Gains of norms are 1, biases 0, `logit_scale` is the config's logit_scale_init_value.
    """
    rng = np.random.default_rng(seed)
    return Weights({name: _draw(name, shape, config, rng) for name, shape in expected_shapes(config).items()})


def with_classifier(config: Config, weights: Weights, labels: Sequence[str], seed: int = 0) -> tuple[Config, Weights]:
    """The vision tower of a checkpoint with a new, random head for these labels.

    Raises CheckpointError where there is no vision tower, ValueError for labels that are none or not all different.
    """
    if config.vision_config is None:
        raise CheckpointError("there is no vision tower to put a classifier on; load a checkpoint that has one")
    head = replace(
        config,
        text_config=None,
        architectures=(f"{config.family.class_prefix}ForImageClassification",),
        id2label=dict(enumerate(checked_labels(labels))),
        problem_type=None,
    )
    new = initial_weights(replace(head, vision_config=replace(config.vision_config, num_hidden_layers=1)), seed)
    tower = {name: weights.stored(name) for name in weights if name.startswith("vision_model.")}
    return head, Weights(
        tower | {name: new[name] for name in ("classifier.weight", "classifier.bias")}, files=weights.files
    )


def _draw(name: str, shape: tuple[int, ...], config: Config, rng: np.random.Generator) -> np.ndarray:
    if name == "logit_scale":
        return np.array(config.logit_scale_init_value, np.float32)
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    if len(shape) == 1 and name.endswith(".weight"):
        return np.ones(shape, np.float32)  # the gain of a norm
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(_deviation(name, shape, config))
    if name.endswith((".word_embeddings.weight", ".roberta.embeddings.position_embeddings.weight")):
        values[config.text_config.pad_token_id] = 0  # type: ignore[union-attr]
    return values


def _deviation(name: str, shape: tuple[int, ...], config: Config) -> float:
    """The standard deviation of a tensor (Radford et al. 2021, section 2.4; the details are Transformers')."""
    tower: AnyTowerConfig | None = config.text_config if name.startswith("text") else config.vision_config
    assert tower is not None
    if name.split(".")[0] in ("text_projection", "visual_projection", "classifier"):
        alone = not (config.is_whole or config.is_classifier)  # the config is then the tower's
        factor = tower.initializer_factor if alone else config.initializer_factor
        return shape[1] ** -0.5 * factor
    d, factor, part = tower.hidden_size, tower.initializer_factor, name.split(".")[-2]
    if part in ("q_proj", "k_proj", "v_proj", "fc2"):  # smaller in deep towers, whose branches add up
        return float((d * 2 * tower.num_hidden_layers) ** -0.5 * factor)
    if part == "out_proj":
        return float(d**-0.5 * factor)
    if part == "fc1":
        return float((2 * d) ** -0.5 * factor)
    if name.endswith("class_embedding"):
        return float(d**-0.5 * factor)
    if part in ("token_embedding", "patch_embedding", "position_embedding"):
        return (0.02 if name.startswith("text") else tower.initializer_range) * factor
    return tower.initializer_range
