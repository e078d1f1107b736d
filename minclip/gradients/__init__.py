"""CLIP backwards: how the loss, or a cosine, answers to every tensor, every pixel and every attention map.

Training and explaining are the same sum read from different ends: the chain rule, from the loss back through the
logits, the unit vectors, the projections and the towers, layer by layer. Read beside what they undo:

    loss.py      `minclip.contrastive` backwards
    towers.py    `minclip.towers` backwards
    layers.py    `minclip.layers` backwards: the chapter's heart
    record.py    the steps that a forward pass noted, and where gradients are added up
    passes.py    one tower forwards, and back
    training.py  what gradients are for: AdamW, and the loop around it

There is one forward pass, that of `minclip.towers`: it notes its steps by name and the functions here read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minclip.config import Config
from minclip.contrastive import contrastive_loss, logits_per_image, unit
from minclip.errors import CheckpointError
from minclip.gradients import loss as backwards
from minclip.gradients.passes import Pass, forward
from minclip.gradients.record import Parameters
from minclip.weights import Weights


class HasWeights(Protocol):
    """What is asked of a model here; `minclip.Model` has it, whatever its backend."""

    @property
    def source(self) -> str: ...

    @property
    def config(self) -> Config: ...

    @property
    def weights(self) -> Weights: ...

    @property
    def towers(self) -> Any: ...


def contrastive(model: HasWeights, **inputs: Any) -> tuple[float, Mapping[str, np.ndarray]]:
    """The contrastive loss of a batch of pairs, and its gradient for every tensor of the model, by name.

    inputs: what `model.processor(text=..., images=...)` makes of b texts and b images, the i-th text of the i-th image.
    Each gradient has its tensor's shape; it is float64 where the model is NumPy's and computes in it, else float32.
    All is computed by the reference, from `model.weights`, whatever the model's backend.
    Raises CheckpointError for a model without both towers, ValueError naming an input that does not fit.
    """
    weights = whole(model)
    p, scale = Parameters(weights), float(weights["logit_scale"].reshape(()))
    vision, text = (forward(tower, weights, model.config, inputs) for tower in ("vision", "text"))
    image_embeds, text_embeds = unit(vision.embeds), unit(text.embeds)  # (b, p) each
    logits = logits_per_image(image_embeds, text_embeds, scale)  # (b, b)
    loss = contrastive_loss(logits)

    dlogits = backwards.contrastive_loss(logits)
    dimage, dtext, dscale = backwards.logits_per_image(dlogits, image_embeds, text_embeds, scale)
    p.add("logit_scale", dscale.reshape(weights["logit_scale"].shape))
    vision.backward(backwards.unit(dimage, vision.embeds), p)
    text.backward(backwards.unit(dtext, text.embeds), p)
    return loss, p.gradients()


@dataclass(frozen=True)
class Similarity:
    """Cosines of n pairs, and how each answers to what the towers were given and to every attention map.

    pixel_values (n, c, height, width); inputs_embeds (n, t, d), of the text's tokens before positions are added;
    vision_attentions and text_attentions, one (n, h, t, t) a layer: of the probabilities, after a head's mask.
    """

    cosines: np.ndarray  # (n,)
    pixel_values: np.ndarray
    inputs_embeds: np.ndarray
    vision_attentions: tuple[np.ndarray, ...]
    text_attentions: tuple[np.ndarray, ...]


def similarity(model: HasWeights, *, pairs: Sequence[tuple[int, int]] | None = None, **inputs: Any) -> Similarity:
    """The cosines of pairs and their gradients: what moves this picture towards this text, and away from it.

    inputs: as for `contrastive`. pairs: which image meets which text, as indices; None pairs the i-th with the i-th,
    or a lone image with every text, or a lone text with every image.
    Raises CheckpointError for a model without both towers, ValueError for pairs or inputs that do not fit.
    """
    weights = whole(model)
    vision, text = (forward(tower, weights, model.config, inputs) for tower in ("vision", "text"))
    if pairs is not None:
        images, texts = _checked_pairs(pairs, len(vision.embeds), len(text.embeds))
        vision, text = vision.rows(images), text.rows(texts)
    elif len(vision.embeds) != len(text.embeds) and 1 not in (len(vision.embeds), len(text.embeds)):
        raise ValueError(
            f"{len(vision.embeds)} images and {len(text.embeds)} texts make no pairs; pass as many of each, or pairs="
        )
    image_embeds, text_embeds = unit(vision.embeds), unit(text.embeds)
    dimage = backwards.unit(text_embeds, vision.embeds)  # the cosine is y . z, so dy = z
    dtext = backwards.unit(image_embeds, text.embeds)
    found = [_inputs_and_attentions(one, d, weights) for one, d in ((vision, dimage), (text, dtext))]
    (pixels, vision_attentions), (tokens, text_attentions) = found
    cosines = (image_embeds * text_embeds).sum(axis=-1)
    return Similarity(cosines, pixels, tokens, vision_attentions, text_attentions)


def _inputs_and_attentions(
    run: Pass, dembeds: np.ndarray, weights: Weights
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The gradients of a tower's input and of its attention maps, first layer first."""
    attentions: list[np.ndarray] = []

    def note(name: str, gradient: np.ndarray) -> None:
        if name.endswith(".probabilities"):
            attentions.append(gradient)

    dinputs = run.backward(dembeds, Parameters(weights, wanted=False), note)
    return dinputs, tuple(reversed(attentions))


def _checked_pairs(pairs: Sequence[tuple[int, int]], images: int, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """The index of each pair's image and of its text."""
    chosen = np.asarray(pairs)
    if chosen.ndim != 2 or chosen.shape[1] != 2 or chosen.dtype.kind not in "iu":
        raise ValueError(f"pairs must be (image, text) indices, at least one pair, not {pairs!r:.60}")
    for name, column, count in (("image", chosen[:, 0], images), ("text", chosen[:, 1], texts)):
        if column.min() < 0 or column.max() >= count:
            bad = int(column.min() if column.min() < 0 else column.max())
            raise ValueError(f"pairs name {name} {bad}, but the {name}s go from 0 to {count - 1}")
    return chosen[:, 0], chosen[:, 1]


def whole(model: HasWeights) -> Weights:
    """The weights of a model that has both towers, in the type that NumPy computes in. Raises CheckpointError."""
    if not model.config.is_whole:
        there = f"only its {' and '.join(model.config.towers)} tower"
        raise CheckpointError(
            f"{model.source} holds {there}, so it compares no images with texts; load a checkpoint of the whole model"
        )
    weights = getattr(model.towers, "weights", model.weights)  # NumPy's towers may have been widened to float64
    return weights if isinstance(weights, Weights) else model.weights
