"""What a tower has to do: the operations of its matrix products, and the weights that it reads for them.

An operation is a multiplication or an addition of two numbers, so a product of (n, k) and (k, m) has 2 n k m. All else
(norms, activations, softmax) is left out: it is what a limit made from the matrix products does not allow time for.
Counted is the definition, every token through every layer: who computes less (the last layer for the pooled token
alone, say) may come above a limit made from it.
"""

from __future__ import annotations

from typing import NamedTuple

from minclip.config import AnyTowerConfig, Config


class Work(NamedTuple):
    """flops: operations for one image or text. weights: numbers in the matrices, which are read once for a batch."""

    flops: int
    weights: int

    def __add__(self, other: tuple[int, ...]) -> Work:  # type: ignore[override]  # of Work, not of tuples
        return Work(self.flops + other[0], self.weights + other[1])


def image_work(config: Config, side: int | None = None) -> Work:
    """One image, `side` pixels square (None: the config's), through the vision tower and its head."""
    vision = config.vision_config
    assert vision is not None
    d, patches = vision.hidden_size, ((side or vision.image_size) // vision.patch_size) ** 2
    embedding = _linear(patches, vision.num_channels * vision.patch_size**2, d)
    work = embedding + _layers(vision, patches + 1)
    if config.is_classifier:
        return work + _linear(1, d, config.num_labels)
    return work + _linear(1, d, config.projection_dim) if config.has_projection else work


def text_work(config: Config, tokens: int) -> Work:
    """One text of so many tokens through the text tower and its projection."""
    text = config.text_config
    assert text is not None
    work = _layers(text, tokens)
    if hasattr(text, "project_dim"):  # AltCLIP's step into CLIP's text space, of every token
        work += _linear(tokens, text.hidden_size, text.project_dim)
    return work + _linear(1, text.output_dim, config.projection_dim) if config.has_projection else work


def _layers(tower: AnyTowerConfig, tokens: int) -> Work:
    """q, k, v and output, scores and their product with v, and the two steps of the MLP, for each layer."""
    d, f = tower.hidden_size, tower.intermediate_size
    projections = _linear(tokens, d, 4 * d)
    attention = Work(2 * (2 * tokens * tokens * d), 0)
    mlp = _linear(tokens, d, f) + _linear(tokens, f, d)
    layer = projections + attention + mlp
    return Work(tower.num_hidden_layers * layer.flops, tower.num_hidden_layers * layer.weights)


def _linear(rows: int, inputs: int, outputs: int) -> Work:
    return Work(2 * rows * inputs * outputs, inputs * outputs)
