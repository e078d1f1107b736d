"""Why a picture and a text are alike: which patches and which tokens the cosine rests on.

Four ways to ask, each a handful of lines over the steps and gradients of one pass (`minclip.gradients`):

    relevance   attention that the cosine answers to, gathered over the layers (Chefer et al. 2021)
    rollout     attention multiplied through all layers (Abnar and Zuidema 2020); it knows nothing of the text
    surgery     each patch's own cosine with the text, less what it shares with every text (Li et al. 2023)
    attention   the last layer's attention, as it is: what the others are measured against

`deletion_insertion` measures them. All is computed by the reference, from `model.weights`, whatever the backend.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from minclip import gradients
from minclip.contrastive import unit
from minclip.gradients import loss as backwards
from minclip.gradients.passes import Pass, forward
from minclip.gradients.record import Parameters
from minclip.gradients.towers import entering
from minclip.images import ImageSource
from minclip.layers import layer_norm, linear, merge_heads, softmax
from minclip.loading import load
from minclip.model import Model
from minclip.ranking import checked_labels
from minclip.tokenizers.batch import Tokenizer
from minclip.weights import Weights

METHODS = ("relevance", "rollout", "surgery", "attention")
DEFAULT = "relevance"
SURGERY_LAYERS = 6  # the last ones, as in the paper's code for models of 12 and 24 layers


@dataclass(frozen=True)
class Explanation:
    """Why a picture is as like a text as it is.

    score: their cosine, less that with the text it was held against. map (rows, columns): the relevance of every patch,
    not negative, in units of its own. tokens: the text's pieces, as written, each with its share of the relevance, 0 to
    1, 1 in all; framing tokens are left out, and letters that are spread over several tokens stand together.
    truncated: whether the text was longer than the model reads. picture: what the model saw, resized and cropped.
    """

    text: str
    score: float
    map: np.ndarray
    tokens: list[tuple[str, float]]
    truncated: bool
    picture: Image.Image

    def overlay(self, side: int = 256) -> Image.Image:
        """The picture with its map laid over, its shorter side `side` pixels: a faded grey where the
        map is 0, dark violet where it is largest. `COLOURS` get darker evenly, for eyes of every kind."""
        return overlay(self.picture, self.map, side)


def explain(
    image: ImageSource,
    texts: str | Sequence[str],
    *,
    model: str | Path | Model | None = None,
    method: str = DEFAULT,
    against: str | None = None,
    start_layer: int = 0,
) -> list[Explanation]:
    """Explain the cosine of an image with each text, or, with `against`, why it is this text rather than that one.

    image: one, of anything `minclip.images` opens. model: a `Model`, or what `load` takes. method: see above.
    against: another text: what is explained is the difference of the two cosines. start_layer: from which layer on
    "relevance" gathers attention, counted from the end where negative. -1, the last one alone, is what the authors'
    notebook for CLIP begins with; 0, all layers, is better by deletion and insertion on the bundled model.
    With "surgery" what the texts share is left out, so that one text's map depends on the others given.
    Raises ValueError for no text, an unknown method or layer, and for `against` where the method does not look at the
    text; CheckpointError for a model without both towers.
    """
    model = model if isinstance(model, Model) else load(model)
    found = checked_labels([texts] if isinstance(texts, str) else texts)
    weights = gradients.whole(model)
    _check(method, against, start_layer, model)
    processor, config = model.processor, model.config
    pixels = processor.image_processor.pixels(image)  # (h, w, 3)
    vision = forward("vision", weights, config, {"pixel_values": processor.image_processor.normalize(pixels[None])})
    tokens = processor(text=[*found, *([] if against is None else [against]), *([""] if method == "surgery" else [])])
    text = forward("text", weights, config, tokens)
    embeds, (image_embed,) = unit(text.embeds), unit(vision.embeds)  # (n + ..., p), (p,)
    n = len(found)
    scale = np.exp(weights["logit_scale"].reshape(()))  # relevance answers to logits, as published
    towards = embeds[:n] - (0 if against is None else embeds[n])  # (n, p); the score is their product with the image

    if method == "surgery":
        redundant = None if against is None and n > 1 else embeds[-1] if against is None else embeds[n]
        patches = surgery(vision, weights, embeds[:n], redundant)
    else:
        patches = gathered(vision, backwards.unit(scale * towards, vision.embeds), method, start_layer)[:, 1:]
    assert config.vision_config is not None
    grid = tuple(side // config.vision_config.patch_size for side in pixels.shape[:2])
    maps = np.broadcast_to(patches, (n, patches.shape[1])).reshape(n, *grid)
    shares = gathered(text, backwards.unit(scale * image_embed[None], text.embeds), method, start_layer)[:n]  # (n, t)
    real = tokens["attention_mask"].astype(bool)  # (n, t); of these the first and the last are the frame
    picture = Image.fromarray(pixels)
    return [
        Explanation(
            text=one,
            score=float(towards[i] @ image_embed),
            map=maps[i],
            tokens=pieces(processor.tokenizer, *(x[i][real[i]][1:-1] for x in (tokens["input_ids"], shares))),
            truncated=len(processor.tokenizer.encode(one)) > processor.context_length,
            picture=picture,
        )
        for i, one in enumerate(found)
    ]


def _check(method: str, against: str | None, start_layer: int, model: Model) -> None:
    if method not in METHODS:
        raise ValueError(f"method={method!r} is not one of {', '.join(METHODS)}")
    if against is not None and not isinstance(against, str):
        raise ValueError(f"against must be a text, not of type {type(against).__name__}")
    if against is not None and method in ("rollout", "attention"):
        raise ValueError(f"{method} does not look at the text, so nothing can be held against it; use relevance")
    layers = [tower.num_hidden_layers for tower in (model.config.vision_config, model.config.text_config) if tower]
    if not -min(layers) <= start_layer < min(layers):
        raise ValueError(
            f"start_layer={start_layer} is not a layer of both towers, which have {layers}; -1 is the last"
        )


# --- methods -------------------------------------------------------------------------------------------------------


def gathered(run: Pass, dembeds: np.ndarray, method: str, start_layer: int) -> np.ndarray:
    """How much of the pooled token's answer each token holds, by one of the methods over attention maps: (n, t).

    dembeds (n, p): the gradient of each score for the tower's embedding.
    """
    layers = run.tower_config.num_hidden_layers
    start = start_layer % layers
    pooled = run.pooling_weights()  # (b, t)
    share = np.broadcast_to(pooled, (max(len(dembeds), len(pooled)), pooled.shape[1])).copy()
    if method == "attention":
        maps = run.steps[f"layers.{layers - 1}.probabilities"].mean(axis=1)  # (b, t, t)
        return (share[:, None] @ maps)[:, 0]
    if method == "rollout":
        for i in reversed(range(layers)):  # half of a token's state is its own, by the residual
            maps = run.steps[f"layers.{i}.probabilities"].mean(axis=1)
            share = (share + (share[:, None] @ maps)[:, 0]) / 2
        return share
    shares = [share]

    def note(name: str, gradient: np.ndarray) -> None:  # called from the last layer to the first: R = R + R A
        _, layer, step = name.split(".") if name.count(".") == 2 else ("", "-1", "")
        if step == "probabilities" and int(layer) >= start:
            cam = np.maximum(gradient * run.steps[name], 0).mean(axis=1)  # (n, t, t), Chefer et al. eq. 5
            shares.append(shares[-1] + (shares[-1][:, None] @ cam)[:, 0])  # eq. 6

    run.backward(dembeds, Parameters(run.weights, wanted=False), note)
    return shares[-1] - share  # without the identity that it began with


def surgery(run: Pass, weights: Weights, texts: np.ndarray, redundant: np.ndarray | None) -> np.ndarray:
    """Each patch's cosine with each text, less what is common to all of them: (n, patches), the least of a text 0.

    texts: unit vectors (n, p). redundant (p,): what is left out instead, of a lone text; None is the mean over texts.
    The patches' states come by another path: in the last layers tokens attend to those whose values are like their
    own, and what the feed-forward layers would add is left out (CLIP Surgery, Li et al. 2023, sections 3.2 and 3.3).
    """
    config, w = run.config.vision_config, weights.at("vision_model")
    assert config is not None
    first = max(0, config.num_hidden_layers - SURGERY_LAYERS)
    x = entering(run.steps, first)  # (1, t, d)
    for i in range(first, config.num_hidden_layers):
        v = run.steps[f"layers.{i}.v"]  # (1, h, t, k)
        alike = softmax(v @ v.swapaxes(-1, -2) * v.dtype.type(1 / math.sqrt(v.shape[-1])))
        out = w.at(f"encoder.layers.{i}.self_attn.out_proj")
        x = x + linear(merge_heads(alike @ v), out["weight"], out["bias"])
    x = layer_norm(x[0, 1:], w["post_layernorm.weight"], w["post_layernorm.bias"], config.layer_norm_eps)
    cosines = unit(linear(x, weights["visual_projection.weight"])) @ texts.T  # (patches, n)
    if redundant is not None:
        found = cosines - (unit(linear(x, weights["visual_projection.weight"])) @ redundant)[:, None]
    else:
        likely = softmax(2 * unit(run.embeds) @ texts.T)  # (1, n): an obvious text counts for more
        weighted = cosines * (likely / likely.mean())
        found = weighted - weighted.mean(axis=1, keepdims=True)
    return (found - found.min(axis=0)).T


def pieces(tokenizer: Tokenizer, ids: np.ndarray, relevance: np.ndarray) -> list[tuple[str, float]]:
    """The characters of a text's tokens (t,), framing and padding left out, with their shares of the relevance (t,)."""
    own = [(int(i), max(float(r), 0.0)) for i, r in zip(ids, relevance, strict=True)]
    total = sum(r for _, r in own) or 1.0
    found: list[tuple[str, float]] = []
    written, waiting = "", 0.0
    for end, (_, share) in enumerate(own, start=1):
        waiting += share / total
        so_far = tokenizer.decode([i for i, _ in own[:end]])
        new = so_far[len(written) :]
        if end < len(own) and (so_far.endswith("\N{REPLACEMENT CHARACTER}") or not new.strip()):
            continue  # a letter of several bytes that goes on in the next token, or a space before it
        found.append((new, waiting))
        written, waiting = so_far, 0.0
    return found


# --- pictures ------------------------------------------------------------------------------------------------------

COLOURS = ((255, 250, 214), (254, 201, 125), (247, 131, 92), (208, 63, 108), (131, 32, 122), (52, 16, 96))
"""From pale yellow by red to dark violet, evenly darker: distinct with any kind of colour vision, and in grey."""


def coloured(levels: np.ndarray) -> np.ndarray:
    """Levels from 0 to 1, of any shape, as RGB bytes (..., 3), between the anchors of `COLOURS` by straight lines."""
    anchors = np.linspace(0, 1, len(COLOURS))
    channels = [np.interp(levels, anchors, [colour[c] for colour in COLOURS]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay(picture: Image.Image, relevance: np.ndarray, side: int) -> Image.Image:
    """A picture with a map (rows, columns) laid over it, smoothly, its shorter side `side` pixels."""
    scale = side / min(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    levels = relevance / (relevance.max() or 1.0)
    smooth = Image.fromarray(levels.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    smooth = np.clip(np.asarray(smooth), 0, 1)
    grey = np.asarray(picture.resize(size, Image.Resampling.LANCZOS).convert("L"), np.float32)[..., None]
    faded = 0.5 * grey + 0.5 * 255
    strength = 0.85 * smooth[..., None] ** 0.5  # where nothing is relevant the picture is seen, faded
    mixed = (1 - strength) * faded + strength * coloured(smooth)
    return Image.fromarray(mixed.round().astype(np.uint8))


# --- measuring -----------------------------------------------------------------------------------------------------


def deletion_insertion(
    model: Model, image: ImageSource, text: str, relevance: np.ndarray, *, steps: int = 16, fill: int = 255
) -> tuple[float, float]:
    """The areas under the cosine while the most relevant patches are removed, and while they alone are shown.

    A good map has a small first area and a large second one (Petsiuk et al. 2018). relevance (rows, columns): a map.
    steps: into how many equal parts the patches are divided; fill: the grey, 0 to 255, that stands for nothing.
    """
    processor, patch = model.processor.image_processor, model.config.vision_config
    assert patch is not None
    pixels = processor.pixels(image)
    order = np.argsort(-relevance, axis=None, kind="stable")
    rank = np.empty(order.size, int)
    rank[order] = np.arange(order.size)
    rank = np.kron(rank.reshape(relevance.shape), np.ones((patch.patch_size,) * 2, int))  # of each pixel's patch
    rank = np.pad(rank, [(0, a - b) for a, b in zip(pixels.shape[:2], rank.shape, strict=True)], mode="edge")
    counts = np.linspace(0, order.size, steps + 1)[:, None, None]
    taken = (rank < counts)[..., None]  # (steps + 1, h, w, 1)
    empty = np.uint8(fill)
    pictures = np.concatenate([np.where(taken, empty, pixels), np.where(taken, pixels, empty)])
    features = model.get_image_features(pixel_values=processor.normalize(pictures))
    assert isinstance(features, np.ndarray)  # it is a whole output where hidden states are asked for
    embeds = unit(features)
    scores = (embeds @ model.encode_text(text)[0]).reshape(2, steps + 1)
    areas = (scores[:, 1:] + scores[:, :-1]).mean(axis=1) / 2
    return float(areas[0]), float(areas[1])
